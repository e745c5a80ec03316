package main

// From keys and claims to bytes: every vector that has claims, made anew.

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"tongxing.test/base45"
)

// Claims as the vectors have them. What may exceed 2^53 is a text in JSON.
type (
	tokenClaims struct {
		Iss       string  `json:"iss"`
		Aud       string  `json:"aud"`
		Exp       int64   `json:"exp"`
		Iat       int64   `json:"iat"`
		Cti       hexData `json:"cti"`
		DeviceKey hexData `json:"device_key"`
		Purposes  []int   `json:"purposes"`
		Scope     int     `json:"scope"`
		Kind      int     `json:"kind"`
	}
	proofClaims struct {
		Aud   *string `json:"aud"`
		Exp   int64   `json:"exp"`
		Iat   int64   `json:"iat"`
		Nonce hexData `json:"nonce"`
	}
	requestClaims struct {
		tokenClaims
		DeviceID hexData `json:"device_id"`
		Life     uint64  `json:"life,string"`
	}
	presentationClaims struct {
		Token hexData `json:"token"`
		Proof hexData `json:"proof"`
		K     hexData `json:"k"`
	}
	statementClaims struct {
		Iss          string   `json:"iss"`
		Exp          int64    `json:"exp"`
		Iat          int64    `json:"iat"`
		Token        hexData  `json:"token"`
		Epoch        hexData  `json:"epoch"`
		Seq          uint64   `json:"seq,string"`
		Label        string   `json:"label"`
		Rule         *string  `json:"rule"`
		Authority    *string  `json:"authority"`
		AssignedAt   *int64   `json:"assigned_at"`
		Tests        [][]uint `json:"tests"`
		Doses        [][]uint `json:"doses"`
		Visits       [][]uint `json:"visits"`
		Hint         hexData  `json:"hint"`
		OfflineUntil int64    `json:"offline_until"`
	}
	editionClaims struct {
		Version uint64            `json:"version,string"`
		Exp     int64             `json:"exp"`
		Iat     int64             `json:"iat"`
		Toml    string            `json:"toml"`
		Content *trustListContent `json:"content"`
	}
	trustListContent struct {
		Domain    string    `json:"domain"`
		Threshold int       `json:"threshold"`
		Roots     []hexData `json:"roots"`
		Gateway   struct {
			Bundle  []hexData `json:"bundle"`
			LogKeys []hexData `json:"log_keys"`
		} `json:"gateway"`
		Members []struct {
			Code          string    `json:"code"`
			Bundle        []hexData `json:"bundle"`
			Endpoints     []string  `json:"endpoints"`
			ConsentKeys   []hexData `json:"consent_keys"`
			StatementKeys []hexData `json:"statement_keys"`
			SealingKey    hexData   `json:"sealing_key"`
			Categories    []int     `json:"categories"`
			Suspension    *struct {
				Reason      string
				From, Until uint64
			} `json:"suspension"`
		} `json:"members"`
	}
	hintClaims struct {
		Name           string `json:"name"`
		DocumentNumber string `json:"document_number"`
	}
)

func claims[T any](v *vector) (read T) {
	if err := json.Unmarshal(v.Claims, &read); err != nil {
		panic(err)
	}
	return read
}

// entries is a map in the making. Go's nil is CBOR's null: what is not there must not be put.
type entries map[int]any

func (e entries) put(key int, there bool, value any) {
	if there {
		e[key] = value
	}
}

// produce makes the object of a vector, and its text if it has one.
func produce(vectors all, v *vector, keys []testKey) (data []byte, text string) {
	switch v.Operation {
	case "open_trust_list":
		read := claims[editionClaims](v)
		data = signDocument("trust_list", keys, editionPayload(read, trustListEntries(read.Content)))
	case "open_policy":
		read := claims[editionClaims](v)
		data = signDocument("policy", keys, editionPayload(read, read.Toml))
	case "verify_request":
		data = signOwn("consent_request", keys[0], requestPayload(claims[requestClaims](v)))
	case "verify_token", "use_consent":
		data = signOwn("token", keys[0], tokenPayload(claims[tokenClaims](v)))
	case "verify_proof":
		hash := sha256.Sum256(v.Context.Token)
		cti := readToken(readObject("token", v.Context.Token).claims).cti
		data = sign1("proof", keys[0], kid(cti[:8]), proofPayload(claims[proofClaims](v)), hash[:])
	case "verify_statement":
		data = signOwn("statement", keys[0], statementPayload(claims[statementClaims](v)))
	case "read_presentation":
		read := claims[presentationClaims](v)
		data = encode([]any{1, []byte(read.Token), orNull(read.Proof), []byte(read.K)})
		text = "TX1:" + base45.Encode(data)
	case "open_hint":
		data = sealHint(claims[hintClaims](v), v.Context)
	case "merkle_root":
		root := rootOf(hashLeaves(claims[treeClaims](v).Leaves))
		data = root[:]
	case "verify_inclusion":
		read := claims[treeClaims](v)
		data = joined(pathOf(hashLeaves(read.Leaves), read.Index))
	case "verify_consistency":
		read := claims[treeClaims](v)
		data = joined(consistencyOf(hashLeaves(read.Leaves), read.OldSize, true))
	case "read_record", "read_refusal_record":
		data = recordBytes(claims[recordClaims](v))
	case "verify_access_receipt":
		data = receiptBytes(claims[receiptClaims](v), keys[0])
	case "open_checkpoint":
		text = checkpointNote(claims[checkpointClaims](v), vectors.trustList(&v.Context).domain, keys[0])
		data = []byte(text)
	case "open_delivery_receipt":
		data = signOwn("delivery_receipt", keys[0], deliveryPayload(claims[deliveryClaims](v)))
	}
	return data, text
}

// signOwn: the kid is that of the key, and external_aad is empty: all but the proof.
func signOwn(of string, key testKey, payload []byte) []byte {
	return sign1(of, key, kidOf(key.Public), payload, []byte{})
}

// orNull: a nil slice is null in CBOR as well, in go-cose's and in this program's encoding; said here, not relied on.
func orNull(data []byte) any {
	if data == nil {
		return nil
	}
	return data
}

func confirmation(point []byte) any {
	key := entries{1: 2, -1: 1, -2: point[1:], -3: point[0] == 3}
	return entries{1: key}
}

func tokenPayload(c tokenClaims) []byte {
	consent := entries{1: c.Purposes, 2: c.Scope, 4: c.Kind}
	all := entries{1: c.Iss, 3: c.Aud, 4: c.Exp, 6: c.Iat, 7: []byte(c.Cti), -65537: consent}
	if c.DeviceKey != nil {
		all[8] = confirmation(c.DeviceKey)
	}
	return encode(all)
}

func proofPayload(c proofClaims) []byte {
	all := entries{4: c.Exp, 6: c.Iat, 10: []byte(c.Nonce)}
	all.put(3, c.Aud != nil, c.Aud)
	return encode(all)
}

func requestPayload(c requestClaims) []byte {
	wish := entries{1: []byte(c.DeviceID), 2: c.Purposes, 3: c.Scope, 4: c.Kind, 5: c.Life}
	all := entries{3: c.Aud, 6: c.Iat, 7: []byte(c.Cti), -65539: wish}
	if c.DeviceKey != nil {
		all[8] = confirmation(c.DeviceKey)
	}
	return encode(all)
}

func statementPayload(c statementClaims) []byte {
	status := entries{1: []byte(c.Token), 2: []any{[]byte(c.Epoch), c.Seq}, 3: c.Label, 11: c.OfflineUntil}
	status.put(4, c.Rule != nil, c.Rule)
	status.put(5, c.Authority != nil, c.Authority)
	status.put(6, c.AssignedAt != nil, c.AssignedAt)
	status.put(7, len(c.Tests) > 0, c.Tests)
	status.put(8, len(c.Doses) > 0, c.Doses)
	status.put(9, len(c.Visits) > 0, c.Visits)
	status.put(10, c.Hint != nil, []byte(c.Hint))
	return encode(entries{1: c.Iss, 4: c.Exp, 6: c.Iat, -65538: status})
}

func editionPayload(c editionClaims, content any) []byte {
	return encode(entries{1: c.Version, 2: content, 4: c.Exp, 6: c.Iat})
}

func trustListEntries(c *trustListContent) any {
	keys := func(encoded []hexData) any {
		all := []any{} // Never nil, which is null.
		for _, key := range encoded {
			all = append(all, []any{int(algEd25519), []byte(key)})
		}
		return all
	}
	bundle := func(ders []hexData) any {
		all := []any{}
		for _, der := range ders {
			all = append(all, []byte(der))
		}
		return all
	}
	members := []any{}
	for _, m := range c.Members {
		member := entries{
			1: m.Code, 2: bundle(m.Bundle), 3: m.Endpoints, 4: keys(m.ConsentKeys), 5: keys(m.StatementKeys),
			6: []byte(m.SealingKey), 7: m.Categories,
		}
		if out := m.Suspension; out != nil {
			member.put(8, true, entries{1: out.Reason, 2: out.From, 3: out.Until})
		}
		members = append(members, member)
	}
	gateway := entries{1: bundle(c.Gateway.Bundle), 2: keys(c.Gateway.LogKeys)}
	return entries{1: c.Domain, 2: c.Threshold, 3: keys(c.Roots), 4: gateway, 5: members}
}

// sealHint: names are counted in characters, which are runes in Go.
func sealHint(c hintClaims, context vectorContext) []byte {
	first, size := utf8.DecodeRuneInString(c.Name)
	stars := min(max(utf8.RuneCountInString(c.Name[size:]), 1), 8)
	name, tail := string(first)+strings.Repeat("*", stars), c.DocumentNumber[max(len(c.DocumentNumber)-4, 0):]
	plain := make([]byte, 64)
	plain[0], plain[1] = byte(len(name)), byte(len(tail))
	copy(plain[2:], name+tail)
	nonce, k := context.Nonce, deriveK(context.NodeSecret, context.Cti)
	return hintCipher(k).Seal(append([]byte{}, nonce...), nonce, plain, nil)
}
