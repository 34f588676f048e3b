package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
)

// hashing are OWASP's parameters for argon2id: 19 MiB, two passes, one lane.
var hashing = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

const (
	// maxHashes bounds the memory of logins, at 19 MiB each.
	maxHashes = 4
	// maxPassword is the contract's, in characters.
	maxPassword = 1024
)

// HashPassword returns the argon2id hash of a password, in the encoded form that
// names its parameters. A password is 1 to 1,024 characters.
func HashPassword(password string) (string, error) {
	if n := utf8.RuneCountInString(password); n == 0 || n > maxPassword {
		return "", errors.New("a password has 1 to 1024 characters")
	}
	hash, err := argon2id.CreateHash(password, hashing)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// passwords checks passwords, a few at a time.
type passwords struct {
	slots chan struct{}
	// nobody is the hash that a password is checked against where there is no
	// user, so that an unknown email takes as long as a wrong password.
	nobody string
}

func newPasswords() (*passwords, error) {
	nobody, err := HashPassword(rand.Text())
	if err != nil {
		return nil, err
	}
	return &passwords{slots: make(chan struct{}, maxHashes), nobody: nobody}, nil
}

// match reports whether password has the given hash; with an empty hash it takes
// as long to say no. It waits for a slot until ctx ends.
func (p *passwords) match(ctx context.Context, password, hash string) (bool, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	known := hash != ""
	if !known {
		hash = p.nobody
	}
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	return match && known, nil
}
