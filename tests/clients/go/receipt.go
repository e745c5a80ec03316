package main

// The access receipt: that an exchange is on record, as proto/access-receipt.cddl and access-record.cddl lay it out.

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"

	recognition "tongxing.test/gen/tongxing/recognition/v1"
)

const (
	maxReceipt = 2048
	maxCount   = 65_536
	maxTime    = 253_402_300_799 // The end of the year 9999.
)

// verifyReceipt returns where the record is and what it says, once the gateway's own keys have shown that.
func verifyReceipt(data []byte, logKeys []issuerKey) (receipt accessReceipt, record accessRecord, err error) {
	if len(data) == 0 || len(data) > maxReceipt {
		return receipt, record, errors.New("no receipt")
	}
	if err := decode(data, &receipt); err != nil {
		return receipt, record, err
	}
	if receipt.Version != 1 || receipt.Path == nil { // nil is null.
		return receipt, record, errors.New("not a receipt of version 1")
	}
	owner, err := ownerOf(receipt.Log)
	if err != nil {
		return receipt, record, err
	}
	var commit logCommit
	object, err := read1(receipt.Commit, &commit)
	if err != nil {
		return receipt, record, err
	}
	if err := verify1(typLogCommit, object, logKeys); err != nil {
		return receipt, record, err
	}
	if commit.Count > maxCount || commit.Committed < 0 || commit.Committed > maxTime {
		return receipt, record, errors.New("not a commit")
	}
	place := binary.BigEndian.AppendUint64([]byte{owner}, receipt.Index)
	inner := leaf(receipt.Record)
	if !leadsTo(commit.Root, leaf(append(place, inner[:]...)), receipt.Position, commit.Count, receipt.Path) {
		return receipt, record, errors.New("the record is not at its place in the commit")
	}
	err = decode(receipt.Record, &record)
	return receipt, record, err
}

// checkReceipt: a receipt is worth nothing unless it is of our own exchange, any other one verifies as well.
func checkReceipt(
	data []byte, logKeys []issuerKey, token consent,
	asked *recognition.RecognizeRequest, answer *recognition.RecognizeResponse,
) (accessReceipt, error) {
	receipt, record, err := verifyReceipt(data, logKeys)
	if err != nil {
		return receipt, err
	}
	statement := sha256.Sum256(answer.Statement)
	switch {
	case receipt.Log != token.Issuer:
		return receipt, errors.New("it is on a log where home does not look")
	case !bytes.Equal(record.Exchange[:], answer.ExchangeId):
		return receipt, errors.New("the record is of another exchange")
	case record.Cti != token.Cti:
		return receipt, errors.New("the record is of another consent")
	case record.Venue != asked.Venue || record.Purpose != int32(asked.Purpose):
		return receipt, errors.New("the record has another question")
	case record.Outcome != int32(answer.Outcome):
		return receipt, errors.New("the record has another outcome")
	case record.Statement == nil || *record.Statement != [16]byte(statement[:16]):
		return receipt, errors.New("the record has another statement")
	}
	return receipt, nil
}

// ownerOf is the byte that a log has in hashes: the member's code as a number.
func ownerOf(log string) (byte, error) {
	if log == "gateway" {
		return 0xff, nil
	}
	code, err := strconv.ParseUint(log, 10, 8)
	if err != nil || len(log) != 2 {
		return 0, errors.New("not a log")
	}
	return byte(code), nil
}

func leaf(data []byte) [32]byte {
	return sha256.Sum256(append([]byte{0}, data...))
}

func node(left, right [32]byte) [32]byte {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// leadsTo: does the path lead from the leaf at its position in a tree of count leaves to the root (RFC 9162 §2.1.3.2)?
func leadsTo(root, hash [32]byte, position, count uint64, path [][32]byte) bool {
	if position >= count {
		return false
	}
	last := count - 1
	for _, sister := range path {
		if last == 0 {
			return false
		}
		if position%2 == 1 || position == last {
			hash = node(sister, hash)
			for position%2 == 0 && position > 0 { // Odd last nodes go up as they are.
				position, last = position/2, last/2
			}
		} else {
			hash = node(hash, sister)
		}
		position, last = position/2, last/2
	}
	return last == 0 && hash == root
}
