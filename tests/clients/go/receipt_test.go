package main

// Holds receipt.go to proto/vectors.

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	recognition "tongxing.test/gen/tongxing/recognition/v1"
	types "tongxing.test/gen/tongxing/types/v1"
)

type receiptVectors struct {
	TestKeys map[string]struct{ Public string } `json:"test_keys"`
	Vectors  []struct {
		ID, Bytes, Verdict string
		Repeat             int
		Result             struct{ Exchange string }
	}
}

func readFile(t *testing.T, name string) (read receiptVectors) {
	data := must(os.ReadFile("../../../proto/vectors/" + name + ".json"))
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

func readVectors(t *testing.T) (read receiptVectors, logKeys []issuerKey) {
	read = readFile(t, "access-receipt")
	key := must(hex.DecodeString(read.TestKeys["gateway-log"].Public))
	return read, []issuerKey{{Alg: algEd25519, Public: [32]byte(key)}}
}

func TestReceiptsGetTheirVerdicts(t *testing.T) {
	read, logKeys := readVectors(t)
	for _, vector := range read.Vectors {
		data := bytes.Repeat(must(hex.DecodeString(vector.Bytes)), max(vector.Repeat, 1))
		_, record, err := verifyReceipt(data, logKeys)
		if (err == nil) != (vector.Verdict == "valid") {
			t.Errorf("%s: %s, and got %v", vector.ID, vector.Verdict, err)
		}
		if err == nil && hex.EncodeToString(record.Exchange[:]) != vector.Result.Exchange {
			t.Errorf("%s: of exchange %x", vector.ID, record.Exchange)
		}
	}
}

func TestNoFlippedBitOfAReceiptSurvives(t *testing.T) {
	read, logKeys := readVectors(t)
	good := must(hex.DecodeString(read.Vectors[0].Bytes))
	for bit := range len(good) * 8 {
		flipped := slices.Clone(good)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, _, err := verifyReceipt(flipped, logKeys); err == nil {
			t.Errorf("bit %d was flipped", bit)
		}
	}
}

func TestAReceiptIsGoodForItsOwnExchangeAlone(t *testing.T) {
	read, logKeys := readVectors(t)
	receipt := must(hex.DecodeString(read.Vectors[0].Bytes))
	_, said, err := verifyReceipt(receipt, logKeys)
	if err != nil {
		t.Fatal(err)
	}
	token := consent{Issuer: "44", Cti: said.Cti}
	asked := &recognition.RecognizeRequest{Venue: "44/station/guangzhou-south", Purpose: types.Purpose_PURPOSE_TRAVEL}
	answer := &recognition.RecognizeResponse{
		ExchangeId: must(hex.DecodeString(read.Vectors[0].Result.Exchange)),
		Outcome:    recognition.Outcome_OUTCOME_STATUS,
		Statement:  must(hex.DecodeString(readFile(t, "statement").Vectors[0].Bytes)),
	}
	if _, err := checkReceipt(receipt, logKeys, token, asked, answer); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*consent, *recognition.RecognizeRequest, *recognition.RecognizeResponse){
		"log":     func(c *consent, _ *recognition.RecognizeRequest, _ *recognition.RecognizeResponse) { c.Issuer = "11" },
		"cti":     func(c *consent, _ *recognition.RecognizeRequest, _ *recognition.RecognizeResponse) { c.Cti[0]++ },
		"venue":   func(_ *consent, q *recognition.RecognizeRequest, _ *recognition.RecognizeResponse) { q.Venue = "" },
		"purpose": func(_ *consent, q *recognition.RecognizeRequest, _ *recognition.RecognizeResponse) { q.Purpose = 1 },
		"exchange": func(_ *consent, _ *recognition.RecognizeRequest, a *recognition.RecognizeResponse) {
			a.ExchangeId = nil
		},
		"outcome": func(_ *consent, _ *recognition.RecognizeRequest, a *recognition.RecognizeResponse) { a.Outcome = 3 },
		"statement": func(_ *consent, _ *recognition.RecognizeRequest, a *recognition.RecognizeResponse) {
			a.Statement = nil
		},
	} {
		token, asked, answer := token, proto.CloneOf(asked), proto.CloneOf(answer)
		change(&token, asked, answer)
		if _, err := checkReceipt(receipt, logKeys, token, asked, answer); err == nil {
			t.Errorf("another %s was not seen", name)
		}
	}
}
