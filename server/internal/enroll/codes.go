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
	// deviceCodeBytes is the length of a device code in bytes: 256 random bits, twice
	// the minimum of RFC 8628 section 5.2.
	deviceCodeBytes = 32

	// The alphabets of a user code contain no vowels, so that a code spells no word,
	// and no characters that look alike (RFC 8628 section 6.1). Their lengths divide
	// 256, so that a random byte selects uniformly.
	codeLetters = "CDFGHJKMNPQRTVWX"
	codeDigits  = "23456789"

	halfCode = 4
)

// newDeviceCode returns a new device code and its hash, under which it is stored.
func newDeviceCode(random io.Reader) (code string, hash []byte, err error) {
	secret := make([]byte, deviceCodeBytes)
	if _, err := io.ReadFull(random, secret); err != nil {
		return "", nil, fmt.Errorf("generate device code: %w", err)
	}
	code = base64.RawURLEncoding.EncodeToString(secret)
	return code, hashDeviceCode(code), nil
}

// hashDeviceCode needs no salt and no stretching: the code is random.
func hashDeviceCode(code string) []byte {
	hash := sha256.Sum256([]byte(code))
	return hash[:]
}

// newUserCode returns a new user code, such as CDFG-2345.
func newUserCode(random io.Reader) (string, error) {
	picks := make([]byte, 2*halfCode)
	if _, err := io.ReadFull(random, picks); err != nil {
		return "", fmt.Errorf("generate user code: %w", err)
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

// normaliseUserCode converts a typed user code to the form in which codes are stored.
// It ignores case, spaces and dashes. If the input cannot be a code, it returns the
// empty string, which no pending device has.
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
