package enroll

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"unicode"
)

const (
	// deviceCodeBytes are 256 random bits, twice what RFC 8628 section 5.2 asks
	// for at least.
	deviceCodeBytes = 32

	// The alphabets of a user code: no vowels, so that it spells no word, and
	// none of the letters and digits that are taken for one another (RFC 8628
	// section 6.1). Their lengths divide 256, so a random byte picks evenly.
	codeLetters = "CDFGHJKMNPQRTVWX"
	codeDigits  = "23456789"

	halfCode = 4
)

// newDeviceCode returns a secret for the device and the hash it is stored under.
func newDeviceCode(random io.Reader) (code string, hash []byte, err error) {
	secret := make([]byte, deviceCodeBytes)
	if _, err := io.ReadFull(random, secret); err != nil {
		return "", nil, fmt.Errorf("make device code: %w", err)
	}
	code = base64.RawURLEncoding.EncodeToString(secret)
	return code, hashDeviceCode(code), nil
}

// hashDeviceCode needs no salt and no stretching: the code is random.
func hashDeviceCode(code string) []byte {
	hash := sha256.Sum256([]byte(code))
	return hash[:]
}

// newUserCode returns a code for people, such as CDFG-2345.
func newUserCode(random io.Reader) (string, error) {
	picks := make([]byte, 2*halfCode)
	if _, err := io.ReadFull(random, picks); err != nil {
		return "", fmt.Errorf("make user code: %w", err)
	}
	for i, pick := range picks {
		alphabet := codeLetters
		if i >= halfCode {
			alphabet = codeDigits
		}
		picks[i] = alphabet[int(pick)%len(alphabet)]
	}
	return string(picks[:halfCode]) + "-" + string(picks[halfCode:]), nil
}

// normaliseUserCode brings what a person typed into the form in which codes are
// stored: case, spaces and dashes, of any sort, do not matter. What cannot be a
// code becomes the empty string, which no device has.
func normaliseUserCode(typed string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Dash, r) {
			return -1
		}
		return unicode.ToUpper(r)
	}, typed)
	if len(plain) != 2*halfCode || !within(plain[:halfCode], codeLetters) || !within(plain[halfCode:], codeDigits) {
		return ""
	}
	return plain[:halfCode] + "-" + plain[halfCode:]
}

func within(s, alphabet string) bool {
	return strings.Trim(s, alphabet) == ""
}
