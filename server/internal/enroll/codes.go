package enroll

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

const (
	// deviceCodeBytes is the length of a device code in bytes. The first deviceCodeSecret
	// are random, 216 bits and more than RFC 8628 section 5.2 asks for; the rest is the
	// time of expiry in seconds since 1970. Codes of older versions are all random, and
	// one in 600 of them has a time in the past.
	deviceCodeBytes  = 32
	deviceCodeSecret = 27

	// The alphabets of a user code contain no vowels, so that a code spells no word,
	// and no characters that look alike (RFC 8628 section 6.1). Their lengths divide
	// 256, so that a random byte selects uniformly.
	codeLetters = "CDFGHJKMNPQRTVWX"
	codeDigits  = "23456789"

	halfCode = 4
)

// newDeviceCode returns a new device code and its hash, under which it is stored. The
// code ends with the time at which the enrollment expires, so that a poll can be told so
// however long ago the row was deleted.
func newDeviceCode(random io.Reader, expires time.Time) (code string, hash []byte, err error) {
	secret := make([]byte, deviceCodeBytes)
	if _, err := io.ReadFull(random, secret); err != nil {
		return "", nil, fmt.Errorf("generate device code: %w", err)
	}
	// A second later than the row, which must be the first to expire.
	seconds := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()+1))
	copy(secret[deviceCodeSecret:], seconds[len(seconds)-(deviceCodeBytes-deviceCodeSecret):])
	code = base64.RawURLEncoding.EncodeToString(secret)
	return code, hashDeviceCode(code), nil
}

// deviceCodeExpiry returns the time in a device code.
func deviceCodeExpiry(code string) (expires time.Time, ok bool) {
	secret, err := base64.RawURLEncoding.DecodeString(code)
	if err != nil || len(secret) != deviceCodeBytes {
		return time.Time{}, false
	}
	var seconds int64
	for _, b := range secret[deviceCodeSecret:] {
		seconds = seconds<<8 | int64(b)
	}
	return time.Unix(seconds, 0), true
}

// hashDeviceCode needs no salt and no stretching: the code is random.
func hashDeviceCode(code string) []byte {
	hash := sha256.Sum256([]byte(code))
	return hash[:]
}

// hashTag returns the hash under which a tag is stored, and nil for none.
func hashTag(tag string) []byte {
	if tag == "" {
		return nil
	}
	hash := sha256.Sum256([]byte(tag))
	return hash[:]
}

// newUserCode returns a new user code of an enrollment, such as CDFG-2345.
func newUserCode(random io.Reader) (string, error) {
	letters, digits, err := newHalves(random)
	return letters + "-" + digits, err
}

// newLoginCode returns a new user code of a login, such as 2345-CDFG. Its form tells it from the code of an enrollment:
// whoever is asked to enter one is shown what it is for, and no code stands for two things.
func newLoginCode(random io.Reader) (string, error) {
	letters, digits, err := newHalves(random)
	return digits + "-" + letters, err
}

func newHalves(random io.Reader) (letters, digits string, err error) {
	picks := make([]byte, 2*halfCode)
	if _, err := io.ReadFull(random, picks); err != nil {
		return "", "", fmt.Errorf("generate user code: %w", err)
	}
	for i, pick := range picks {
		alphabet := codeLetters
		if i >= halfCode {
			alphabet = codeDigits
		}
		picks[i] = alphabet[int(pick)%len(alphabet)]
	}
	return string(picks[:halfCode]), string(picks[halfCode:]), nil
}

// normaliseUserCode converts a typed user code to the form in which codes are stored.
// It ignores case, spaces and dashes. If the input cannot be a code, it returns the
// empty string, which no pending device has.
func normaliseUserCode(typed string) string { return normaliseCode(typed, codeLetters, codeDigits) }

// normaliseLoginCode is normaliseUserCode for the code of a login.
func normaliseLoginCode(typed string) string { return normaliseCode(typed, codeDigits, codeLetters) }

func normaliseCode(typed, first, second string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Dash, r) {
			return -1
		}
		return unicode.ToUpper(r)
	}, typed)
	if len(plain) != 2*halfCode || !within(plain[:halfCode], first) || !within(plain[halfCode:], second) {
		return ""
	}
	return plain[:halfCode] + "-" + plain[halfCode:]
}

func within(s, alphabet string) bool {
	return strings.Trim(s, alphabet) == ""
}
