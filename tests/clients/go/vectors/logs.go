package main

// Access logs: records, the receipt that one is on record, a log's signed head, and the member's receipt for a log.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

const (
	maxRecord        = 512
	maxReceipt       = 2048
	maxNote          = 1024
	maxCommitRecords = 65_536
	maxSignatures    = 8

	outcomeStatus       = 1
	outcomeUndetermined = 3
)

var (
	staffForm  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	realmForm  = regexp.MustCompile(`^([0-9]{2}|gateway)$`)
	reasonForm = regexp.MustCompile(`^[A-Z0-9_]+$`)
	logIDForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// --- Records ----------------------------------------------------------------------------------------------------------

type record struct {
	exchange  []byte
	disclosed any // As JSON has it: the scope that went out, or nothing.
}

func readRecord(data []byte) (read record) {
	f := open("access_record", decode("access_record", data, maxRecord))
	f.time(1)
	wellFormed(isVenue(f.text(2, 40)), f.of)
	f.caller()
	if f.has(4) {
		wellFormed(staffForm.MatchString(f.text(4, 32)), f.of)
	}
	f.number(5, 1, 6)
	var granted any
	if f.has(6) {
		granted = float64(f.number(6, 1, 63))
	}
	f.bytes(7, 16)
	f.number(8, 1, 4)
	if f.has(9) {
		outcome := f.number(9, 1, 5)
		f.number(10, 0, 3)
		if f.has(11) {
			f.bytes(11, 16)
		}
		if outcome == outcomeStatus || outcome == outcomeUndetermined {
			read.disclosed = granted
		}
	} else {
		f.reason()
	}
	f.uint(12)
	read.exchange = f.bytes(13, 16)
	f.bytes(15, 16)
	f.finish()
	return read
}

func readRefusalRecord(data []byte) {
	f := open("access_record", decode("access_record", data, maxRecord))
	f.time(1)
	f.caller()
	f.reason()
	f.finish()
}

func (f fields) number(key int64, first, last uint64) uint64 {
	number := f.uint(key)
	wellFormed(first <= number && number <= last, f.of)
	return number
}

func (f fields) caller() {
	parts := strings.Split(f.text(3, 96), "/")
	wellFormed(realmForm.MatchString(parts[0]) && (len(parts) == 3 || len(parts) == 4), f.of)
	for _, name := range parts[1:] {
		wellFormed(nameForm.MatchString(name), f.of)
	}
}

func (f fields) reason() {
	wellFormed(reasonForm.MatchString(f.text(14, 40)), f.of)
}

// --- The receipt ------------------------------------------------------------------------------------------------------

func verifyReceipt(data []byte, logKeys map[kid][]byte) map[string]any {
	const of = "access_receipt"
	parts, ok := decode(of, data, maxReceipt).([]any)
	wellFormed(ok && len(parts) == 7 && parts[0] == uint64(1), of)
	log, ok := parts[1].(string)
	wellFormed(ok && isOwner(log), of)
	index, ok := parts[2].(uint64)
	wellFormed(ok, of)
	record := asBytes(of, parts[3])
	wellFormed(1 <= len(record) && len(record) <= maxRecord, of)
	position, ok := parts[4].(uint64)
	wellFormed(ok, of)
	items, ok := parts[5].([]any)
	wellFormed(ok && len(items) <= 16, of)
	path := []hash{}
	for _, item := range items {
		data := asBytes(of, item)
		wellFormed(len(data) == sha256.Size, of)
		path = append(path, hash(data))
	}
	signed := asBytes(of, parts[6])
	wellFormed(1 <= len(signed) && len(signed) <= maxObject, of)
	commit := openCommit(signed, logKeys)
	root, ok := rootOfPath(commitLeaf(log, index, record), position, commit.count, path)
	require(ok && root == commit.root, of, "SIGNATURE_INVALID")
	logID := sha256.Sum256(commit.key)
	return map[string]any{
		"log_id":       hex.EncodeToString(logID[:]),
		"exchange":     hex.EncodeToString(readRecord(record).exchange),
		"committed_at": float64(commit.iat),
	}
}

type commit struct {
	key   []byte
	root  hash
	count uint64
	iat   int64
}

func openCommit(data []byte, logKeys map[kid][]byte) (read commit) {
	object := readObject("log_commit", data)
	f := object.claims
	f.uint(1)
	read.root, read.count = hash(f.bytes(2, sha256.Size)), f.uint(3)
	f.bytes(4, sha256.Size)
	read.iat = f.time(6)
	f.finish()
	wellFormed(read.count <= maxCommitRecords, f.of)
	key, known := logKeys[object.kid]
	require(known, f.of, "KEY_UNKNOWN")
	object.verify(algEd25519, key, []byte{})
	read.key = key
	return read
}

// commitLeaf: log, index and the record's leaf hash, which is a leaf again.
func commitLeaf(log string, index uint64, record []byte) hash {
	owner := uint64(0xff)
	if log != "gateway" {
		owner = must(strconv.ParseUint(log, 10, 8))
	}
	leaf := leafHash(record)
	return leafHash(append(binary.BigEndian.AppendUint64([]byte{byte(owner)}, index), leaf[:]...))
}

func isOwner(log string) bool {
	return log == "gateway" || memberForm.MatchString(log)
}

// --- The checkpoint, a signed note ------------------------------------------------------------------------------------

func openCheckpoint(note string, trust trust) map[string]any {
	const of = "checkpoint"
	require(len(note) <= maxNote, of, "OBJECT_TOO_LARGE")
	text, signatures, ok := strings.Cut(note, "\n\n")
	wellFormed(ok, of)
	lines := strings.Split(text, "\n") // No scanner: it would take a carriage return away.
	wellFormed(len(lines) == 3, of)
	origin, size := lines[0], lines[1]
	place, ok := strings.CutPrefix(origin, trust.domain+"/access-log/")
	wellFormed(ok, of)
	log, logID, _ := strings.Cut(place, "/")
	wellFormed(isOwner(log) && logIDForm.MatchString(logID), of)
	number, err := strconv.ParseUint(size, 10, 64)
	wellFormed(err == nil && strconv.FormatUint(number, 10) == size, of)
	root := fromBase64(of, lines[2])
	wellFormed(len(root) == sha256.Size, of)
	signatures, ok = strings.CutSuffix(signatures, "\n")
	wellFormed(ok, of)
	type by struct {
		name      string
		signature []byte
	}
	var all []by
	for line := range strings.SplitSeq(signatures, "\n") {
		rest, dash := strings.CutPrefix(line, "\u2014 ")
		name, encoded, space := strings.Cut(rest, " ")
		wellFormed(dash && space && name != "", of)
		signature := fromBase64(of, encoded)
		wellFormed(len(signature) > 4, of)
		all = append(all, by{name, signature})
	}
	wellFormed(len(all) <= maxSignatures, of)
	id := must(hex.DecodeString(logID))
	key := trust.logKeys[kid(id[:8])]
	whole := sha256.Sum256(key)
	require(key != nil && bytes.Equal(whole[:], id), of, "KEY_UNKNOWN")
	for _, by := range all {
		if by.name == origin && bytes.HasPrefix(by.signature, keyHash(origin, key)) {
			require(ed25519.Verify(key, []byte(text+"\n"), by.signature[4:]), of, "SIGNATURE_INVALID")
			return map[string]any{"log_id": logID, "log": log, "size": size, "root": hex.EncodeToString(root)}
		}
	}
	refuse(of, "SIGNATURE_INVALID")
	return nil
}

// fromBase64: one meaning has one encoding; Go reads on over line breaks, and takes bits behind the end.
func fromBase64(of, text string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	wellFormed(err == nil && base64.StdEncoding.EncodeToString(data) == text, of)
	return data
}

func keyHash(name string, key []byte) []byte {
	digest := sha256.Sum256(append([]byte(name+"\n\x01"), key...))
	return digest[:4]
}

// --- The member's receipt ---------------------------------------------------------------------------------------------

func openDeliveryReceipt(v *vector, members map[string]memberKeys) {
	object := readObject("delivery_receipt", v.data())
	f := object.claims
	issuer := f.member(1)
	f.bytes(2, sha256.Size)
	f.uint(3)
	f.bytes(4, sha256.Size)
	iat := f.time(6)
	f.finish()
	wellFormed(issuer == v.Context.Member, f.of)
	key, known := members[issuer].statement[object.kid]
	require(known, f.of, "KEY_UNKNOWN")
	object.verify(algEd25519, key, []byte{})
	require(iat <= v.Now+clockLeeway, f.of, "NOT_YET_VALID")
}

// --- Operations -------------------------------------------------------------------------------------------------------

func merkleRoot(v *vector) map[string]any {
	root := rootOf(hashLeaves(claims[treeClaims](v).Leaves))
	require(bytes.Equal(root[:], v.data()), "", "NOT_PROVEN")
	return nil
}

func verifyInclusion(v *vector) map[string]any {
	c := v.Context
	root, ok := rootOfPath(leafHash(c.Leaf), c.Index, c.Size, hashes(v.data()))
	require(ok && bytes.Equal(root[:], c.Root), "", "NOT_PROVEN")
	return nil
}

func verifyConsistency(v *vector) map[string]any {
	c := v.Context
	proven := isConsistent(c.OldSize, hash(c.OldRoot), c.Size, hash(c.Root), hashes(v.data()))
	require(proven, "", "NOT_PROVEN")
	return nil
}

// hashes are one after the other in a vector's bytes.
func hashes(data []byte) (all []hash) {
	for ; len(data) > 0; data = data[sha256.Size:] {
		all = append(all, hash(data[:sha256.Size]))
	}
	return all
}

func hashLeaves(leaves []hexData) []hash {
	all := []hash{}
	for _, leaf := range leaves {
		all = append(all, leafHash(leaf))
	}
	return all
}
