package main

// The operations of proto/vectors/README.md, each in its order, which is the order of refusals.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"tongxing.test/base45"
)

const (
	clockLeeway = 30
	maxText     = 3172
)

// verdict is what a vector comes to: a reason or "valid", the object it is about, and what a valid object says.
type verdict struct {
	verdict, object string
	result          map[string]any
}

// all has the vectors by their ids, for what a context refers to.
type all map[string]*vector

func (a all) verdict(v *vector) (got verdict) {
	defer func() {
		switch refused := recover().(type) {
		case nil:
		case refusal:
			got = verdict{verdict: refused.reason, object: refused.of}
		default:
			panic(refused)
		}
	}()
	operations := map[string]func(*vector) map[string]any{
		"open_trust_list":    a.openTrustList,
		"open_policy":        a.openPolicy,
		"verify_request":     verifyRequest,
		"verify_token":       a.verifyToken,
		"use_consent":        a.useConsent,
		"verify_proof":       a.verifyProof,
		"read_presentation":  readPresentation,
		"verify_statement":   a.verifyStatement,
		"open_hint":          openHint,
		"merkle_root":        merkleRoot,
		"verify_inclusion":   verifyInclusion,
		"verify_consistency": verifyConsistency,
		"read_record": func(v *vector) map[string]any {
			return map[string]any{"disclosed": readRecord(v.data()).disclosed}
		},
		"read_refusal_record": func(v *vector) map[string]any {
			readRefusalRecord(v.data())
			return nil
		},
		"verify_access_receipt": func(v *vector) map[string]any {
			return verifyReceipt(v.data(), a.trustList(&v.Context).logKeys)
		},
		"open_checkpoint": func(v *vector) map[string]any {
			return openCheckpoint(v.Text, a.trustList(&v.Context))
		},
		"open_delivery_receipt": func(v *vector) map[string]any {
			openDeliveryReceipt(v, a.trustList(&v.Context).members)
			return nil
		},
	}
	return verdict{verdict: "valid", result: operations[v.Operation](v)}
}

// --- Documents --------------------------------------------------------------------------------------------------------

func (a all) openTrustList(v *vector) map[string]any {
	edition := openDocument("trust_list", v.data(), v.Context.Roots)
	readTrustList(edition.content)
	return a.checkEdition("trust_list", v, edition)
}

func (a all) openPolicy(v *vector) map[string]any {
	edition := openDocument("policy", v.data(), v.Context.Roots)
	readPolicy(edition.content)
	return a.checkEdition("policy", v, edition)
}

func (a all) checkEdition(of string, v *vector, read edition) map[string]any {
	if v.Context.Held != "" {
		held := a[v.Context.Held]
		version := openDocument(of, held.data(), held.Context.Roots).version
		same := read.version == version && bytes.Equal(v.data(), held.data())
		require(read.version > version || same, of, "VERSION_ROLLED_BACK")
	}
	require(read.iat <= v.Now+clockLeeway, of, "NOT_YET_VALID")
	require(v.Now < read.exp, of, "EXPIRED") // No leeway: what has expired is worth nothing.
	return map[string]any{"version": strconv.FormatUint(read.version, 10)}
}

func (a all) trustList(c *vectorContext) trust {
	held := a[c.TrustList]
	return readTrustList(openDocument("trust_list", held.data(), held.Context.Roots).content)
}

func (a all) policy(c *vectorContext) policy {
	held := a[c.Policy]
	return readPolicy(openDocument("policy", held.data(), held.Context.Roots).content)
}

// --- Consent ----------------------------------------------------------------------------------------------------------

func verifyRequest(v *vector) map[string]any {
	const of = "consent_request"
	request := readObject(of, v.data())
	iat := readRequest(request.claims)
	require(request.kid == kidOf(v.Context.EnrollmentKey), of, "SIGNATURE_INVALID")
	request.verify(algESP256, v.Context.EnrollmentKey, []byte{})
	require(iat <= v.Now+clockLeeway, of, "DEVICE_CLOCK_OFF")
	require(v.Now-iat <= 300, of, "EXPIRED")
	return nil
}

func (a all) verifyToken(v *vector) map[string]any {
	read := a.authenticate(v.data(), &v.Context)
	checkToken(read, v, a.policy(&v.Context))
	return nil
}

func (a all) useConsent(v *vector) map[string]any {
	policy, read := a.policy(&v.Context), a.authenticate(v.data(), &v.Context)
	checkToken(read, v, policy)
	if v.Context.Proof != nil {
		checkProof(v.Context.Proof, v.data(), read, v, policy)
	} else {
		require(read.kind != own && read.kind != dependent, "proof", "PROOF_MISSING")
	}
	admitted, known := policy.grants[[2]string{category(v.Context.Venue), v.Context.Purpose}]
	require(known, "", "PURPOSE_NOT_ADMITTED")
	granted := read.scope & admitted
	if wanted := v.Context.WantedScope; wanted != 0 {
		require(wanted&^granted == 0, "", "SCOPE_NOT_GRANTED")
		granted = wanted
	}
	return map[string]any{"granted_scope": float64(granted)} // As encoding/json has numbers.
}

func (a all) verifyProof(v *vector) map[string]any {
	read := a.authenticate(v.Context.Token, &v.Context)
	return checkProof(v.data(), v.Context.Token, read, v, a.policy(&v.Context))
}

// authenticate: whose token is it? Time, audience and purpose come after that.
func (a all) authenticate(data []byte, c *vectorContext) token {
	object := readObject("token", data)
	read := readToken(object.claims)
	key, known := a.trustList(c).members[read.iss].consent[object.kid]
	require(known, "token", "KEY_UNKNOWN")
	object.verify(algEd25519, key, []byte{})
	return read
}

func category(venue string) string {
	return strings.Split(venue, "/")[1]
}

func checkToken(read token, v *vector, policy policy) {
	longest := policy.lives["token"]
	if read.kind == paper {
		longest = policy.lives["paper"]
	}
	require(read.exp-read.iat <= longest, "token", "LIFE_TOO_LONG")
	require(read.iat <= v.Now+clockLeeway, "token", "NOT_YET_VALID")
	require(v.Now < read.exp+clockLeeway, "token", "EXPIRED")
	here := []string{"*", category(v.Context.Venue), v.Context.Venue}
	require(slices.Contains(here, read.aud), "token", "AUDIENCE_MISMATCH")
	purpose := uint64(slices.Index(purposes, v.Context.Purpose) + 1)
	require(slices.Contains(read.purposes, purpose), "token", "PURPOSE_NOT_CONSENTED")
}

func checkProof(data, token []byte, consent token, v *vector, policy policy) map[string]any {
	const of = "proof"
	require(consent.deviceKey != nil, of, "PROOF_UNEXPECTED")
	object, hash := readObject(of, data), sha256.Sum256(token)
	read := readProof(object.claims)
	require(object.kid == kid(consent.cti[:8]), of, "SIGNATURE_INVALID")
	object.verify(algESP256, consent.deviceKey, hash[:])
	require(read.exp-read.iat <= policy.lives["proof"], of, "LIFE_TOO_LONG")
	require(read.iat <= v.Now+clockLeeway, of, "DEVICE_CLOCK_OFF")
	require(v.Now < read.exp+clockLeeway, of, "EXPIRED")
	require(read.aud == "" || read.aud == v.Context.Venue, of, "PROOF_OF_OTHER_VENUE")
	id := sha256.Sum256(append(hash[:], object.message.Payload...))
	return map[string]any{"proof_id": hex.EncodeToString(id[:16])}
}

// --- Presentation -----------------------------------------------------------------------------------------------------

func readPresentation(v *vector) map[string]any {
	const of = "presentation"
	require(len(v.Text) <= maxText, of, "OBJECT_TOO_LARGE")
	body, ok := strings.CutPrefix(v.Text, "TX1:")
	require(ok, of, "PREFIX_UNKNOWN")
	data, err := base45.Decode(body)
	require(err == nil, of, "NOT_BASE45")
	parts, ok := decode(of, data, maxText).([]any)
	wellFormed(ok && len(parts) == 4 && parts[0] == uint64(1), of)
	sized := func(data []byte) []byte {
		wellFormed(1 <= len(data) && len(data) <= maxObject, of)
		return data
	}
	read := presentationClaims{Token: sized(asBytes(of, parts[1]))}
	if parts[2] != nil {
		read.Proof = sized(asBytes(of, parts[2]))
	}
	read.K = asBytes(of, parts[3])
	wellFormed(len(read.K) == 16, of)
	if said := claims[presentationClaims](v); !bytes.Equal(encode(said), encode(read)) {
		panic(v.ID + ": it says something else")
	}
	return nil
}

// --- Statement --------------------------------------------------------------------------------------------------------

func (a all) verifyStatement(v *vector) map[string]any {
	const of = "statement"
	policy, hash := a.policy(&v.Context), sha256.Sum256(v.Context.Token)
	issuer := a.authenticate(v.Context.Token, &v.Context).iss
	object := readObject(of, v.data())
	read := readStatement(object.claims)
	key, known := a.trustList(&v.Context).members[issuer].statement[object.kid]
	require(known, of, "KEY_UNKNOWN")
	object.verify(algEd25519, key, []byte{})
	wellFormed(read.iss == issuer && bytes.Equal(read.token, hash[:16]), of)
	require(read.exp-read.iat <= policy.lives["statement"], of, "LIFE_TOO_LONG")
	require(read.offlineUntil-read.iat <= policy.lives["offline"], of, "LIFE_TOO_LONG")
	require(read.iat <= v.Now+clockLeeway, of, "NOT_YET_VALID")
	require(v.Now < read.exp+clockLeeway, of, "EXPIRED")
	wellFormed(read.disclosed&^v.Context.GrantedScope == 0, of)
	return policy.judge(read)
}

func deriveK(nodeSecret, cti []byte) []byte {
	return must(hkdf.Key(sha256.New, nodeSecret, nil, "tongxing/1/k"+string(cti), 16))
}

func hintCipher(k []byte) cipher.AEAD {
	key := must(hkdf.Key(sha256.New, k, nil, "tongxing/1/hint", 32))
	return must(cipher.NewGCM(must(aes.NewCipher(key))))
}

func openHint(v *vector) map[string]any {
	c, sealed, opens := v.Context, v.data(), "HINT_DOES_NOT_OPEN"
	if c.NodeSecret != nil && !bytes.Equal(deriveK(c.NodeSecret, c.Cti), c.K) {
		panic(v.ID + ": k is another")
	}
	require(len(sealed) == 92, "", opens)
	plain, err := hintCipher(c.K).Open(nil, sealed[:12], sealed[12:], nil)
	require(err == nil, "", opens)
	n, t := int(plain[0]), int(plain[1])
	require(n <= 48 && t <= 8, "", opens)
	name, tail := plain[2:2+n], plain[2+n:2+n+t]
	require(utf8.Valid(name) && utf8.Valid(tail), "", opens)
	return map[string]any{"masked_name": string(name), "document_tail": string(tail)}
}
