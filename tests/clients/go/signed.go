package main

// Signed objects: COSE in deterministic CBOR, as proto/*.cddl lays them out.
//
// By hand on fxamacker/cbor: the COSE libraries do not know the fully specified algorithms −9 and −19 of RFC 9864 yet,
// and what is left of COSE without them is the array that gets signed.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// `typ`, which keeps a signature over one kind of object from being taken for another.
const (
	typToken          = 65001
	typProof          = 65002
	typStatement      = 65003
	typTrustList      = 65004
	typPolicy         = 65005
	typLogCommit      = 65006
	typConsentRequest = 65007
)

// `alg`: issuers and roots sign with Ed25519, devices with ECDSA on P-256.
const (
	algEd25519 = -19
	algESP256  = -9
)

const (
	clockLeeway = 30
	week        = 7 * 24 * 3600
)

type kid [8]byte

// header is the protected header of a signature (RFC 9052 §3.1, RFC 9596).
type header struct {
	Alg int `cbor:"1,keyasint"`
	Kid kid `cbor:"4,keyasint"`
	Typ int `cbor:"16,keyasint"`
}

type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected struct{} // Empty: nothing may stand outside the signature.
	Payload     []byte
	Signature   []byte
}

type sign struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected struct{}
	Payload     []byte
	Signatures  []struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected struct{}
		Signature   []byte
	}
}

// --- Deterministic CBOR (RFC 8949 §4.2.1) ----------------------------------------------------------------------------

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	// An entry that its .cddl file does not name is refused, never skipped.
	decMode = must(cbor.DecOptions{
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	}.DecMode())
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// encode never fails for the structs of this program.
func encode(value any) []byte {
	return must(encMode.Marshal(value))
}

// decode takes the one encoding of a meaning alone: what it read must encode to the same bytes again.
func decode(data []byte, value any) error {
	if err := decMode.Unmarshal(data, value); err != nil {
		return err
	}
	if !bytes.Equal(encode(value), data) {
		return errors.New("not deterministic CBOR")
	}
	return nil
}

// --- What a device signs: COSE_Sign1 with ESP256 ---------------------------------------------------------------------

// signDevice: nothing as externalAAD is []byte{}, which encodes as h”; nil would encode as null.
func signDevice(typ int, key *ecdsa.PrivateKey, id kid, claims any, externalAAD []byte) ([]byte, error) {
	protected, payload := encode(header{algESP256, id, typ}), encode(claims)
	digest := sha256.Sum256(encode([]any{"Signature1", protected, externalAAD, payload}))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64) // COSE wants r ‖ s, not DER (RFC 9053 §2.1).
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return encode(sign1{Protected: protected, Payload: payload, Signature: signature}), nil
}

func compressed(key *ecdsa.PrivateKey) []byte {
	return elliptic.MarshalCompressed(key.Curve, key.X, key.Y)
}

// publicKey: 02 or 03, the sign of y, stands before x in the compressed point.
func publicKey(key *ecdsa.PrivateKey) coseKey {
	point := compressed(key)
	return coseKey{Kty: 2, Crv: 1, X: [32]byte(point[1:]), Y: point[0] == 3}
}

func kidOf(public []byte) kid {
	digest := sha256.Sum256(public)
	return kid(digest[:8])
}

// --- What issuers sign: COSE_Sign1 with Ed25519 ----------------------------------------------------------------------

// read1 splits an object into its parts and its claims. It believes nothing yet.
func read1(data []byte, claims any) (object sign1, err error) {
	if err = decode(data, &object); err == nil {
		err = decode(object.Payload, claims)
	}
	return object, err
}

// verify1 checks an object that one of these keys must have signed.
func verify1(typ int, object sign1, keys []issuerKey) error {
	id, err := readHeader(typ, object.Protected)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.Alg == algEd25519 && kidOf(key.Public[:]) == id {
			return verify(key, []any{"Signature1", object.Protected, []byte{}, object.Payload}, object.Signature)
		}
	}
	return fmt.Errorf("the issuer has no key %x for this use", id)
}

// readHeader: the header never chooses the algorithm, it must name the one that we expect.
func readHeader(typ int, protected []byte) (kid, error) {
	var read header
	if err := decode(protected, &read); err != nil {
		return kid{}, err
	}
	if read.Alg != algEd25519 || read.Typ != typ {
		return kid{}, fmt.Errorf("not the header of a %d", typ)
	}
	return read.Kid, nil
}

func verify(key issuerKey, sigStructure []any, signature []byte) error {
	if !ed25519.Verify(key.Public[:], encode(sigStructure), signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}

// --- What the roots sign: COSE_Sign by N of M ------------------------------------------------------------------------

func openDocument[Content any](typ int, data []byte, roots []issuerKey, threshold int) (content Content, err error) {
	var document sign
	if err := decode(data, &document); err != nil {
		return content, err
	}
	var body struct {
		Typ int `cbor:"16,keyasint"`
	}
	if err := decode(document.Protected, &body); err != nil {
		return content, err
	}
	if body.Typ != typ {
		return content, fmt.Errorf("not a document of type %d", typ)
	}
	signers := map[kid]bool{}
	for _, by := range document.Signatures {
		id, err := readHeader(typ, by.Protected)
		if err != nil {
			return content, err
		}
		for _, root := range roots { // Others are passed over: when roots change, old and new ones sign.
			if kidOf(root.Public[:]) != id {
				continue
			}
			message := []any{"Signature", document.Protected, by.Protected, []byte{}, document.Payload}
			if err := verify(root, message, by.Signature); err != nil {
				return content, err
			}
			signers[id] = true
		}
	}
	if len(signers) < threshold {
		return content, fmt.Errorf("%d roots signed, %d must", len(signers), threshold)
	}
	var read edition[Content]
	if err := decode(document.Payload, &read); err != nil {
		return content, err
	}
	if read.Expires <= read.Issued || read.Expires > read.Issued+week {
		return content, errors.New("a document lives a week at most")
	}
	if now := time.Now().Unix(); now < read.Issued-clockLeeway || now >= read.Expires {
		return content, errors.New("the document does not hold now")
	}
	return read.Content, nil
}

// --- The sealed identity hint ----------------------------------------------------------------------------------------

// openHint returns masked name and document tail: nonce ‖ ciphertext ‖ tag, 92 bytes for everybody.
func openHint(sealed [92]byte, k []byte) (name, tail string, err error) {
	key, err := hkdf.Key(sha256.New, k, nil, "tongxing/1/hint", 32)
	if err != nil {
		return "", "", err
	}
	aead := must(cipher.NewGCM(must(aes.NewCipher(key))))
	plain, err := aead.Open(nil, sealed[:12], sealed[12:], nil)
	if err != nil {
		return "", "", err
	}
	nameLen, tailLen := int(plain[0]), int(plain[1])
	if nameLen > 48 || tailLen > 8 {
		return "", "", errors.New("not an identity hint")
	}
	return string(plain[2 : 2+nameLen]), string(plain[2+nameLen : 2+nameLen+tailLen]), nil
}
