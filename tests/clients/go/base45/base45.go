package main

// Base45 (RFC 9285): the bytes of a presentation in the alphanumeric characters of a QR.

import (
	"errors"
	"strings"
)

const base45Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// base45Encode writes two bytes as three characters, the lowest digit first; a last single byte as two.
func base45Encode(data []byte) string {
	var text strings.Builder
	for len(data) > 0 {
		value, digits, taken := int(data[0]), 2, 1
		if len(data) > 1 {
			value, digits, taken = int(data[0])<<8|int(data[1]), 3, 2
		}
		for range digits {
			text.WriteByte(base45Alphabet[value%45])
			value /= 45
		}
		data = data[taken:]
	}
	return text.String()
}

func base45Decode(text string) ([]byte, error) {
	var data []byte
	for len(text) > 0 {
		taken := min(3, len(text))
		value, limit := 0, 0xffff
		if taken < 3 {
			limit = 0xff
		}
		for i := taken - 1; i >= 0; i-- {
			digit := strings.IndexByte(base45Alphabet, text[i])
			if digit < 0 {
				return nil, errors.New("not base45")
			}
			value = value*45 + digit
		}
		if value > limit || taken == 1 {
			return nil, errors.New("not base45")
		}
		if taken == 3 {
			data = append(data, byte(value>>8))
		}
		data = append(data, byte(value))
		text = text[taken:]
	}
	return data, nil
}
