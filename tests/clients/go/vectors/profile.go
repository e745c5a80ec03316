package main

// The strict CBOR profile at the head of proto/cose.cddl, and reading a map entry by entry.

import (
	"bytes"
	"errors"
	"math"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

const (
	maxObject   = 1024
	maxDocument = 512 * 1024
	maxTime     = 253_402_300_799 // The end of the year 9999.
)

// refusal is a reason as ErrorInfo has it, and the object it speaks of. It travels as a panic, from wherever it arises
// to verdict: reading what somebody else made is a refusal at every step.
type refusal struct{ reason, of string }

func refuse(of, reason string) {
	panic(refusal{reason, of})
}

func require(holds bool, of, reason string) {
	if !holds {
		refuse(of, reason)
	}
}

func wellFormed(holds bool, of string) {
	require(holds, of, "OBJECT_MALFORMED")
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	// As lax as can be: what is not deterministic is found by encoding again.
	decMode = must(cbor.DecOptions{MaxNestedLevels: 12}.DecMode())
)

func encode(value any) []byte {
	return must(encMode.Marshal(value))
}

// decode takes the one encoding of a meaning alone: decode, encode again, compare.
func decode(of string, data []byte, maxSize int) any {
	require(len(data) <= maxSize, of, "OBJECT_TOO_LARGE")
	var value any
	rest, err := decMode.UnmarshalFirst(data, &value)
	var invalidKey *cbor.UnmarshalTypeError
	if errors.As(err, &invalidKey) {
		wellFormed(false, of) // A map whose key Go cannot have as one.
	}
	require(err == nil, of, "NOT_CBOR")
	require(len(rest) == 0, of, "TRAILING_BYTES")
	// Of two entries with one key Go keeps the last: encoded again they are fewer bytes.
	require(isPlain(value) && bytes.Equal(encode(value), data), of, "NOT_DETERMINISTIC")
	return value
}

// isPlain: no floats and no tags, some of which have types of their own. A big.Int may be an integer beyond 64 bits with
// a sign; where it was a bignum, it encodes differently again.
func isPlain(value any) bool {
	switch value := value.(type) {
	case nil, bool, uint64, int64, string, []byte, big.Int:
		return true
	case []any:
		for _, item := range value {
			if !isPlain(item) {
				return false
			}
		}
		return true
	case map[any]any:
		for key, item := range value {
			if !isPlain(key) || !isPlain(item) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

// --- What values must be ----------------------------------------------------------------------------------------------

func toInt64(value any) (int64, bool) {
	switch value := value.(type) {
	case int64:
		return value, true
	case uint64:
		return int64(value), value <= math.MaxInt64
	default:
		return 0, false
	}
}

// isText: lengths are in bytes of UTF-8, and no control characters.
func isText(text string, longest int) bool {
	sized := 1 <= len(text) && len(text) <= longest
	return sized && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// --- Maps -------------------------------------------------------------------------------------------------------------

// fields is a map whose entries are taken one by one; what nobody took refuses the whole.
type fields struct {
	of      string
	entries map[int64]any
}

func open(of string, value any) fields {
	entries, ok := value.(map[any]any)
	wellFormed(ok, of)
	read := fields{of, map[int64]any{}}
	for key, item := range entries {
		number, ok := toInt64(key)
		wellFormed(ok, of)
		read.entries[number] = item
	}
	return read
}

func (f fields) has(key int64) bool {
	_, there := f.entries[key]
	return there
}

func (f fields) take(key int64) any {
	value, there := f.entries[key]
	wellFormed(there, f.of)
	delete(f.entries, key)
	return value
}

// taken is an entry of one Go type.
func taken[T any](f fields, key int64) T {
	value, ok := f.take(key).(T)
	wellFormed(ok, f.of)
	return value
}

func (f fields) uint(key int64) uint64 {
	return taken[uint64](f, key)
}

func (f fields) time(key int64) int64 {
	seconds := f.uint(key)
	wellFormed(seconds <= maxTime, f.of)
	return int64(seconds)
}

func (f fields) text(key int64, longest int) string {
	text := taken[string](f, key)
	wellFormed(isText(text, longest), f.of)
	return text
}

func (f fields) bytes(key int64, size int) []byte {
	data := taken[[]byte](f, key)
	wellFormed(len(data) == size, f.of)
	return data
}

func (f fields) array(key int64, longest int) []any {
	items := taken[[]any](f, key)
	wellFormed(len(items) <= longest, f.of)
	return items
}

func (f fields) inner(key int64) fields {
	return open(f.of, f.take(key))
}

func (f fields) finish() {
	wellFormed(len(f.entries) == 0, f.of)
}
