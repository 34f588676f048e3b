// Package atrest encrypts the few secrets of the database that somebody who reads it, or a
// backup of it, could use: each with AES-256-GCM (NIST SP 800-38D) under a key that is not
// in the database.
package atrest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	keySize = 32
	// version is the first byte of what Seal returns.
	version = 1
	// Overhead is by how many bytes a sealed secret is longer than the secret.
	Overhead = 1 + 12 + 16
)

// ErrKey means that a secret cannot be opened: it is sealed with another key, or damaged.
var ErrKey = errors.New("it is encrypted with another key")

// Keys are the keys of a key file. The first seals, all open. A nil *Keys is none. It is
// safe for concurrent use.
type Keys struct {
	ciphers []cipher.AEAD
}

// ParseKeys parses a key file: one key a line, 32 random bytes in base64, the one in use
// first. Empty lines and those that begin with # are skipped. The error shows no key.
func ParseKeys(text []byte) (*Keys, error) {
	var keys Keys
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("line %d is no key: %d random bytes in base64, such as `openssl rand -base64 %d` prints", i+1, keySize, keySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		sealer, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		keys.ciphers = append(keys.ciphers, sealer)
	}
	if len(keys.ciphers) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return &keys, nil
}

// Seal encrypts a secret. The name says what it is, and must be the same in Open: a sealed
// secret is of no use in another's place. It must not be called on nil.
func (k *Keys) Seal(name string, secret []byte) []byte {
	return k.ciphers[0].Seal([]byte{version}, nil, secret, []byte(name))
}

// Sealed reports whether stored begins as what Seal returns does, which no DER does.
func Sealed(stored []byte) bool { return len(stored) >= Overhead && stored[0] == version }

// Open decrypts what Seal returned. It reports whether the first key sealed it. The error is
// ErrKey, also on nil.
func (k *Keys) Open(name string, sealed []byte) (secret []byte, current bool, err error) {
	if k == nil || !Sealed(sealed) {
		return nil, false, ErrKey
	}
	for i, c := range k.ciphers {
		if secret, err := c.Open(nil, nil, sealed[1:], []byte(name)); err == nil {
			return secret, i == 0, nil
		}
	}
	return nil, false, ErrKey
}
