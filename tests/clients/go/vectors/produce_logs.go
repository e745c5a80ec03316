package main

// From keys and claims to bytes: access logs.

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
)

// Claims as the vectors have them.
type (
	treeClaims struct {
		Leaves  []hexData `json:"leaves"`
		Index   int       `json:"index,string"`
		OldSize int       `json:"old_size,string"`
	}
	recordClaims struct {
		Time      int64   `json:"time"`
		Venue     *string `json:"venue"` // None of a refusal.
		Caller    string  `json:"caller"`
		Staff     *string `json:"staff"`
		Purpose   int     `json:"purpose"`
		Scope     *int    `json:"scope"`
		Cti       hexData `json:"cti"`
		Kind      int     `json:"kind"`
		Outcome   *int    `json:"outcome"`
		Source    *int    `json:"source"`
		Statement hexData `json:"statement"`
		Policy    string  `json:"policy"`
		Exchange  hexData `json:"exchange"`
		Reason    *string `json:"reason"`
		Trace     hexData `json:"trace"`
	}
	receiptClaims struct {
		Log      string    `json:"log"`
		Index    uint64    `json:"index,string"`
		Record   hexData   `json:"record"`
		Position uint64    `json:"position,string"`
		Path     []hexData `json:"path"`
		Commit   struct {
			Number uint64  `json:"number,string"`
			Root   hexData `json:"root"`
			Count  uint64  `json:"count,string"`
			Heads  hexData `json:"heads"`
			Iat    int64   `json:"iat"`
		} `json:"commit"`
	}
	checkpointClaims struct {
		Log  string  `json:"log"`
		Size string  `json:"size"`
		Root hexData `json:"root"`
	}
	deliveryClaims struct {
		Iss   string  `json:"iss"`
		LogID hexData `json:"log_id"`
		Size  uint64  `json:"size,string"`
		Root  hexData `json:"root"`
		Iat   int64   `json:"iat"`
	}
)

func joined(path []hash) []byte {
	all := []byte{}
	for _, item := range path {
		all = append(all, item[:]...)
	}
	return all
}

func recordBytes(c recordClaims) []byte {
	if c.Venue == nil {
		return encode(entries{1: c.Time, 3: c.Caller, 14: c.Reason})
	}
	all := entries{
		1: c.Time, 2: c.Venue, 3: c.Caller, 5: c.Purpose, 7: []byte(c.Cti), 8: c.Kind,
		12: must(strconv.ParseUint(c.Policy, 10, 64)), 13: []byte(c.Exchange), 15: []byte(c.Trace),
	}
	all.put(4, c.Staff != nil, c.Staff)
	all.put(6, c.Scope != nil, c.Scope)
	all.put(9, c.Outcome != nil, c.Outcome)
	all.put(10, c.Source != nil, c.Source)
	all.put(11, c.Statement != nil, []byte(c.Statement))
	all.put(14, c.Reason != nil, c.Reason)
	return encode(all)
}

func receiptBytes(c receiptClaims, key testKey) []byte {
	made := c.Commit
	payload := encode(entries{1: made.Number, 2: []byte(made.Root), 3: made.Count, 4: []byte(made.Heads), 6: made.Iat})
	path := []any{} // Never nil, which is null.
	for _, item := range c.Path {
		path = append(path, []byte(item))
	}
	commit := signOwn("log_commit", key, payload)
	return encode([]any{1, c.Log, c.Index, []byte(c.Record), c.Position, path, commit})
}

func checkpointNote(c checkpointClaims, domain string, key testKey) string {
	origin := fmt.Sprintf("%s/access-log/%s/%x", domain, c.Log, sha256.Sum256(key.Public))
	text := fmt.Sprintf("%s\n%s\n%s\n", origin, c.Size, base64.StdEncoding.EncodeToString(c.Root))
	signature := ed25519.Sign(ed25519.NewKeyFromSeed(key.Private), []byte(text))
	signed := base64.StdEncoding.EncodeToString(append(keyHash(origin, key.Public), signature...))
	return fmt.Sprintf("%s\n\u2014 %s %s\n", text, origin, signed)
}

func deliveryPayload(c deliveryClaims) []byte {
	return encode(entries{1: c.Iss, 2: []byte(c.LogID), 3: c.Size, 4: []byte(c.Root), 6: c.Iat})
}
