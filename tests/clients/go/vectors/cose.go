package main

// COSE with go-cose 1.3, which does not know the fully specified algorithms of RFC 9864: its signers and verifiers for
// the polymorphic ones are given the other number. What go-cose is not asked: whether headers are as documented.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"math/big"

	"github.com/veraison/go-cose"
)

const (
	algEd25519 cose.Algorithm = -19
	algESP256  cose.Algorithm = -9
)

var types = map[string]uint64{
	"token": 65001, "proof": 65002, "statement": 65003, "trust_list": 65004, "policy": 65005,
	"log_commit": 65006, "consent_request": 65007, "delivery_receipt": 65008,
}

type kid [8]byte

func kidOf(public []byte) kid {
	digest := sha256.Sum256(public)
	return kid(digest[:8])
}

// verifier and signer are go-cose's own, under another number.
type verifier struct {
	cose.Verifier
	alg cose.Algorithm
}

func (v verifier) Algorithm() cose.Algorithm { return v.alg }

type signer struct {
	cose.Signer
	alg cose.Algorithm
}

func (s signer) Algorithm() cose.Algorithm { return s.alg }

// newVerifier reads an encoded key: 32 bytes of Ed25519 or a compressed point of P-256.
func newVerifier(alg cose.Algorithm, public []byte) cose.Verifier {
	if alg == algEd25519 {
		return verifier{must(cose.NewVerifier(cose.AlgorithmEdDSA, ed25519.PublicKey(public))), alg}
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), public)
	key := &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
	return verifier{must(cose.NewVerifier(cose.AlgorithmES256, key)), alg}
}

func newSigner(key testKey) cose.Signer {
	if key.Alg == algEd25519 {
		return signer{must(cose.NewSigner(cose.AlgorithmEdDSA, ed25519.NewKeyFromSeed(key.Private))), key.Alg}
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), key.Public)
	public := ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
	private := &ecdsa.PrivateKey{PublicKey: public, D: new(big.Int).SetBytes(key.Private)}
	return signer{must(cose.NewSigner(cose.AlgorithmES256, private)), key.Alg}
}

// headersOf has the header as it came: go-cose signs and verifies over these bytes.
func headersOf(protected []byte) cose.Headers {
	headers := cose.Headers{RawProtected: encode(protected), RawUnprotected: []byte{0xa0}}
	if err := headers.UnmarshalFromRaw(); err != nil {
		panic(err)
	}
	return headers
}

func newHeaders(of string, alg cose.Algorithm, id kid) cose.Headers {
	return cose.Headers{Protected: cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: alg,
		cose.HeaderLabelKeyID:     id[:],
		cose.HeaderLabelType:      types[of],
	}}
}

// --- COSE_Sign1 -------------------------------------------------------------------------------------------------------

// object is a COSE_Sign1 whose layout is right and whose signature nobody has checked yet.
type object struct {
	of      string
	alg     cose.Algorithm
	kid     kid
	message cose.Sign1Message
	claims  fields
}

func readObject(of string, data []byte) object {
	parts, ok := decode(of, data, maxObject).([]any)
	wellFormed(ok && len(parts) == 4, of)
	protected, payload, signature := asBytes(of, parts[0]), asBytes(of, parts[2]), asBytes(of, parts[3])
	wellFormed(isEmptyMap(parts[1]), of)
	read := object{of: of}
	read.alg, read.kid = readHeader(of, protected)
	read.claims = open(of, decode(of, payload, maxObject))
	read.message = cose.Sign1Message{Headers: headersOf(protected), Payload: payload, Signature: signature}
	return read
}

// verify: the header does not choose the algorithm, it must name the key's.
func (o object) verify(alg cose.Algorithm, public, externalAAD []byte) {
	require(o.alg == alg, o.of, "ALGORITHM_MISMATCH")
	require(o.message.Verify(externalAAD, newVerifier(alg, public)) == nil, o.of, "SIGNATURE_INVALID")
}

// readHeader refuses in this order: crit, typ, alg, all else.
func readHeader(of string, protected []byte) (cose.Algorithm, kid) {
	header := open(of, decode(of, protected, maxObject))
	require(!header.has(2), of, "CRITICAL_HEADER_UNKNOWN")
	require(header.uint(16) == types[of], of, "TYPE_MISMATCH")
	number, ok := toInt64(header.take(1))
	wellFormed(ok, of)
	alg := cose.Algorithm(number)
	require(alg == algEd25519 || alg == algESP256, of, "ALGORITHM_NOT_ALLOWED")
	id := kid(header.bytes(4, 8))
	header.finish()
	return alg, id
}

func sign1(of string, key testKey, id kid, payload, externalAAD []byte) []byte {
	headers := newHeaders(of, key.Alg, id)
	return must(cose.Sign1Untagged(rand.Reader, newSigner(key), headers, payload, externalAAD))
}

func asBytes(of string, value any) []byte {
	data, ok := value.([]byte)
	wellFormed(ok, of)
	return data
}

func isEmptyMap(value any) bool {
	entries, ok := value.(map[any]any)
	return ok && len(entries) == 0
}

// --- COSE_Sign: documents by N of M roots -----------------------------------------------------------------------------

type edition struct {
	version  uint64
	content  any
	exp, iat int64
}

// openDocument reads a document that enough of these roots must have signed.
func openDocument(of string, data []byte, roots rootKeys) edition {
	parts, ok := decode(of, data, maxDocument).([]any)
	wellFormed(ok && len(parts) == 4, of)
	protected, payload := asBytes(of, parts[0]), asBytes(of, parts[2])
	signatures, ok := parts[3].([]any)
	wellFormed(ok && isEmptyMap(parts[1]), of)
	require(bytes.Equal(protected, encode(map[int]uint64{16: types[of]})), of, "TYPE_MISMATCH")
	wellFormed(len(signatures) <= 16, of)
	type by struct {
		alg       cose.Algorithm
		kid       kid
		signature cose.Signature
	}
	var all []by
	for _, item := range signatures {
		triple, ok := item.([]any)
		wellFormed(ok && len(triple) == 3 && isEmptyMap(triple[1]), of)
		header, signature := asBytes(of, triple[0]), asBytes(of, triple[2])
		alg, id := readHeader(of, header)
		all = append(all, by{alg, id, cose.Signature{Headers: headersOf(header), Signature: signature}})
	}
	signed := map[kid]bool{}
	for _, by := range all {
		for _, root := range roots.Keys { // Others are passed over: when roots change, old and new ones sign.
			if kidOf(root) != by.kid {
				continue
			}
			err := by.signature.Verify(newVerifier(algEd25519, root), encode(protected), payload, []byte{})
			require(by.alg == algEd25519 && err == nil, of, "SIGNATURE_INVALID")
			signed[by.kid] = true
		}
	}
	require(len(signed) >= roots.Threshold, of, "THRESHOLD_NOT_MET")
	return readEdition(of, payload)
}

func readEdition(of string, payload []byte) edition {
	read := open(of, decode(of, payload, maxDocument))
	edition := edition{read.uint(1), read.take(2), read.time(4), read.time(6)}
	read.finish()
	wellFormed(edition.iat < edition.exp, of)
	require(edition.exp-edition.iat <= 7*86_400, of, "LIFE_TOO_LONG")
	return edition
}

// signDocument: go-cose's COSE_Sign has its tag, which we have no place for.
func signDocument(of string, keys []testKey, payload []byte) []byte {
	message := cose.SignMessage{
		Headers: cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelType: types[of]}},
		Payload: payload,
	}
	var signers []cose.Signer
	for _, key := range keys {
		headers := newHeaders(of, key.Alg, kidOf(key.Public))
		message.Signatures = append(message.Signatures, &cose.Signature{Headers: headers})
		signers = append(signers, newSigner(key))
	}
	if err := message.Sign(rand.Reader, []byte{}, signers...); err != nil {
		panic(err)
	}
	return bytes.TrimPrefix(must(message.MarshalCBOR()), []byte{0xd8, 98})
}
