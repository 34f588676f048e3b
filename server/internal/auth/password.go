package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
)

// hashing holds the argon2id parameters that OWASP recommends: 19 MiB, two passes,
// one lane.
var hashing = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

const (
	// maxHashes is the maximum number of concurrent password checks, which take
	// 19 MiB each.
	maxHashes = 4
	// maxPassword is the contract's maximum length of a password, in characters.
	maxPassword = 1024
)

// HashPassword returns the argon2id hash of a password of 1 to 1,024 characters, in
// the encoded form that includes the parameters.
func HashPassword(password string) (string, error) {
	if n := utf8.RuneCountInString(password); n == 0 || n > maxPassword {
		return "", errors.New("a password must have 1 to 1024 characters")
	}
	hash, err := argon2id.CreateHash(password, hashing)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// passwords checks passwords, maxHashes at a time.
type passwords struct {
	slots chan struct{}
	// dummy is the hash to check against if the user does not exist, so that an
	// unknown email takes as long as a wrong password.
	dummy string
}

func newPasswords() (*passwords, error) {
	dummy, err := HashPassword(rand.Text())
	if err != nil {
		return nil, err
	}
	return &passwords{slots: make(chan struct{}, maxHashes), dummy: dummy}, nil
}

// match reports whether password has the given hash. An empty hash matches nothing
// and takes as long. match waits for a slot until ctx ends.
func (p *passwords) match(ctx context.Context, password, hash string) (bool, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	known := hash != ""
	if !known {
		hash = p.dummy
	}
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	return match && known, nil
}
