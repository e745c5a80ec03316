package main

// The layouts of proto/*.cddl: from a payload to what it says.

import (
	"crypto/elliptic"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/veraison/go-cose"
)

const (
	own       = 1
	dependent = 2
	paper     = 3
	assisted  = 4
)

var (
	categories = strings.Fields(
		"checkpoint residential station airport port terminal ferry hospital park school workplace other")
	purposes   = strings.Fields("entry travel medical school work lodging")
	memberForm = regexp.MustCompile(`^(00|1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-6])$`)
	nameForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	longNumber = regexp.MustCompile(`[0-9]{11}`)
)

func isVenue(text string) bool {
	parts := strings.Split(text, "/")
	return len(parts) == 3 && len(text) <= 40 && !longNumber.MatchString(text) &&
		memberForm.MatchString(parts[0]) && slices.Contains(categories, parts[1]) && nameForm.MatchString(parts[2])
}

// ascending: known numbers from 1 on, none twice.
func ascending(of string, items []any, last uint64) (numbers []uint64) {
	before := uint64(0)
	for _, item := range items {
		number, ok := item.(uint64)
		wellFormed(ok && before < number && number <= last, of)
		numbers, before = append(numbers, number), number
	}
	return numbers
}

func (f fields) member(key int64) string {
	code := f.text(key, 2)
	require(memberForm.MatchString(code), f.of, "MEMBER_UNKNOWN")
	return code
}

func (f fields) audience() string {
	audience := f.text(3, 40)
	wellFormed(audience == "*" || slices.Contains(categories, audience) || isVenue(audience), f.of)
	return audience
}

func (f fields) purposes(key int64) []uint64 {
	numbers := ascending(f.of, f.array(key, 6), 6)
	wellFormed(len(numbers) > 0, f.of)
	return numbers
}

// deviceKey is the compressed point of claim 8, nil if there is none.
func (f fields) deviceKey() []byte {
	if !f.has(8) {
		return nil
	}
	cnf := f.inner(8)
	key := cnf.inner(1)
	wellFormed(key.uint(1) == 2 && key.uint(-1) == 1, f.of)
	x, odd := key.bytes(-2, 32), taken[bool](key, -3)
	key.finish()
	cnf.finish()
	point := append([]byte{2}, x...)
	if odd {
		point[0] = 3
	}
	onCurve, _ := elliptic.UnmarshalCompressed(elliptic.P256(), point)
	wellFormed(onCurve != nil, f.of)
	return point
}

// --- Token, proof, request --------------------------------------------------------------------------------------------

type token struct {
	iss, aud       string
	exp, iat       int64
	cti, deviceKey []byte
	purposes       []uint64
	scope, kind    uint64
}

func readToken(f fields) token {
	read := token{iss: f.member(1), aud: f.audience(), exp: f.time(4), iat: f.time(6), cti: f.bytes(7, 16)}
	read.deviceKey = f.deviceKey()
	consent := f.inner(-65537)
	read.purposes, read.scope, read.kind = consent.purposes(1), consent.uint(2), consent.uint(4)
	consent.finish()
	f.finish()
	wellFormed(1 <= read.scope && read.scope <= 63 && read.scope%2 == 1, f.of)
	wellFormed(own <= read.kind && read.kind <= assisted, f.of)
	wellFormed(read.iat < read.exp, f.of)
	wellFormed((read.deviceKey != nil) == (read.kind == own || read.kind == dependent), f.of)
	wellFormed(read.kind != paper || read.scope == 1, f.of)
	wellFormed(read.kind != assisted || isVenue(read.aud), f.of)
	return read
}

type proof struct {
	aud      string // Empty: for whichever venue comes first.
	exp, iat int64
}

func readProof(f fields) (read proof) {
	if f.has(3) {
		read.aud = f.text(3, 40)
		wellFormed(isVenue(read.aud), f.of)
	}
	read.exp, read.iat = f.time(4), f.time(6)
	f.bytes(10, 8)
	f.finish()
	wellFormed(read.iat < read.exp, f.of)
	return read
}

// readRequest returns its iat, which is all that is checked beyond the layout.
func readRequest(f fields) int64 {
	f.audience()
	iat := f.time(6)
	f.bytes(7, 16)
	f.deviceKey()
	wish := f.inner(-65539)
	wish.bytes(1, 16)
	wish.purposes(2)
	scope, kind := wish.uint(3), wish.uint(4)
	wish.uint(5)
	wish.finish()
	f.finish()
	wellFormed(1 <= scope && scope <= 63 && own <= kind && kind <= assisted, f.of)
	return iat
}

// --- Statement --------------------------------------------------------------------------------------------------------

type statement struct {
	iss                    string
	exp, iat, offlineUntil int64
	token                  []byte
	label, rule, authority string
	disclosed              uint64 // Scope bits of what is in it.
}

func readStatement(f fields) statement {
	read := statement{iss: f.member(1), exp: f.time(4), iat: f.time(6)}
	status := f.inner(-65538)
	read.token = status.bytes(1, 16)
	head := status.array(2, 2)
	wellFormed(len(head) == 2 && len(asBytes(f.of, head[0])) == 16, f.of)
	_, ok := head[1].(uint64)
	wellFormed(ok, f.of)
	read.label = status.text(3, 48)
	if status.has(4) {
		read.rule = status.text(4, 32)
	}
	if status.has(5) {
		read.authority = status.text(5, 27)
		member, kind, _ := strings.Cut(read.authority, "/")
		wellFormed(memberForm.MatchString(member) && nameForm.MatchString(kind), f.of)
	}
	if status.has(6) {
		status.time(6)
		read.disclosed |= 2
	}
	lists := []struct {
		key     int64
		longest int
		bit     uint64
		holds   func(item []uint64) bool
	}{
		{7, 4, 4, func(test []uint64) bool { return len(test) == 2 && test[1] <= 1 }},
		{8, 4, 8, func(dose []uint64) bool { return len(dose) == 2 && 1 <= dose[0] && dose[0] <= 9 }},
		{9, 8, 16, func(visit []uint64) bool {
			return len(visit) == 3 && visit[0] <= 999_999 && 1 <= visit[1] && visit[1] <= 2
		}},
	}
	for _, list := range lists {
		if status.has(list.key) { // Left out when it is empty.
			readList(f.of, status.array(list.key, list.longest), list.holds)
			read.disclosed |= list.bit
		}
	}
	if status.has(10) {
		status.bytes(10, 92)
		read.disclosed |= 32
	}
	read.offlineUntil = status.time(11)
	status.finish()
	f.finish()
	wellFormed(read.iat <= read.exp, f.of)
	wellFormed(read.iat <= read.offlineUntil && read.offlineUntil <= min(read.exp, read.iat+600), f.of)
	return read
}

func readList(of string, items []any, holds func([]uint64) bool) {
	wellFormed(len(items) > 0, of)
	for _, item := range items {
		values, ok := item.([]any)
		wellFormed(ok, of)
		var numbers []uint64
		for _, value := range values {
			number, ok := value.(uint64)
			wellFormed(ok, of)
			numbers = append(numbers, number)
		}
		wellFormed(holds(numbers), of)
	}
}

// --- Trust list -------------------------------------------------------------------------------------------------------

type memberKeys struct{ consent, statement map[kid][]byte }

type trust struct {
	domain  string
	logKeys map[kid][]byte
	members map[string]memberKeys
}

func readTrustList(content any) trust {
	const of = "trust_list"
	f := open(of, content)
	domain := f.text(1, 200)
	for label := range strings.SplitSeq(domain, ".") {
		wellFormed(nameForm.MatchString(label) && len(label) <= 63, of)
	}
	threshold, used := f.uint(2), readKeys(f, 3)
	wellFormed(1 <= threshold && threshold <= uint64(len(used)), of)
	gateway := f.inner(4)
	readBundle(gateway, 1)
	logKeys := readKeys(gateway, 2)
	used = append(used, logKeys...)
	gateway.finish()
	members := map[string]memberKeys{}
	for _, item := range f.array(5, 100) {
		entry := open(of, item)
		code := entry.member(1)
		readBundle(entry, 2)
		for _, item := range entry.array(3, 8) {
			endpoint, ok := item.(string)
			wellFormed(ok && isText(endpoint, 261) && isEndpoint(endpoint), of)
		}
		consent, statement := readKeys(entry, 4), readKeys(entry, 5)
		entry.bytes(6, 32)
		ascending(of, entry.array(7, 12), 12)
		if entry.has(8) {
			readSuspension(entry.inner(8))
		}
		entry.finish()
		_, twice := members[code]
		wellFormed(!twice, of)
		members[code] = memberKeys{byKid(consent), byKid(statement)}
		used = append(append(used, consent...), statement...)
	}
	f.finish()
	wellFormed(len(byKid(used)) == len(used), of) // One key, one use.
	return trust{domain, byKid(logKeys), members}
}

const longestSuspension = 366 * 24 * 3600

func readSuspension(f fields) {
	wellFormed(f.text(1, 200) != "", f.of)
	from, until := f.time(2), f.time(3)
	wellFormed(from < until && until-from <= longestSuspension, f.of)
	f.finish()
}

func byKid(keys [][]byte) map[kid][]byte {
	all := map[kid][]byte{}
	for _, key := range keys {
		all[kidOf(key)] = key
	}
	return all
}

func readBundle(f fields, key int64) {
	bundle := f.array(key, 4)
	wellFormed(len(bundle) > 0, f.of)
	for _, der := range bundle {
		size := len(asBytes(f.of, der))
		wellFormed(1 <= size && size <= 4096, f.of)
	}
}

func readKeys(f fields, key int64) (keys [][]byte) {
	for _, item := range f.array(key, 16) {
		pair, ok := item.([]any)
		wellFormed(ok && len(pair) == 2, f.of)
		public := asBytes(f.of, pair[1])
		number, ok := toInt64(pair[0])
		wellFormed(ok, f.of)
		alg := cose.Algorithm(number)
		require(alg == algEd25519 || alg == algESP256, f.of, "ALGORITHM_NOT_ALLOWED")
		wellFormed(alg == algEd25519 && len(public) == 32, f.of)
		keys = append(keys, public)
	}
	return keys
}

func isEndpoint(text string) bool {
	colon := strings.LastIndexByte(text, ':')
	if colon < 1 {
		return false
	}
	port, err := strconv.ParseUint(text[colon+1:], 10, 16)
	return err == nil && port != 0 && strconv.FormatUint(port, 10) == text[colon+1:]
}
