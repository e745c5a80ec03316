// Package base45 is RFC 9285: the bytes of a presentation in the alphanumeric characters of a QR.
package base45

import (
	"errors"
	"strings"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// Encode writes two bytes as three characters, the lowest digit first; a last single byte as two.
func Encode(data []byte) string {
	var text strings.Builder
	for len(data) > 0 {
		value, digits, taken := int(data[0]), 2, 1
		if len(data) > 1 {
			value, digits, taken = int(data[0])<<8|int(data[1]), 3, 2
		}
		for range digits {
			text.WriteByte(alphabet[value%45])
			value /= 45
		}
		data = data[taken:]
	}
	return text.String()
}

// Decode takes one text for one byte string: a group of characters that says more than its bytes hold is refused.
func Decode(text string) ([]byte, error) {
	var data []byte
	for len(text) > 0 {
		taken := min(3, len(text))
		value, limit := 0, 0xffff
		if taken < 3 {
			limit = 0xff
		}
		for i := taken - 1; i >= 0; i-- {
			digit := strings.IndexByte(alphabet, text[i])
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
