package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
)

// hashing holds the argon2id parameters that OWASP recommends: 19 MiB, two passes,
// one lane.
var hashing = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// maxHashes is the maximum number of concurrent password checks, which take 19 MiB
// each.
const maxHashes = 4

// concurrentHashes is the number of password checks that run at a time: on half of the
// processors, so that players on the embedded tunnel server keep theirs.
func concurrentHashes() int { return min(max(1, runtime.GOMAXPROCS(0)/2), maxHashes) }

// maxPassword is the contract's maximum length of a password, in characters.
const maxPassword = 1024

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

// passwords checks passwords, a bounded number at a time.
type passwords struct {
	queue *queue // Of all checks.
	// dummy is the hash to check against if the user does not exist, so that an
	// unknown email takes as long as a wrong password.
	dummy string
}

func newPasswords() (*passwords, error) {
	dummy, err := HashPassword(rand.Text())
	if err != nil {
		return nil, err
	}
	return &passwords{queue: newQueue(concurrentHashes()), dummy: dummy}, nil
}

// match reports whether password has the given hash. An empty hash matches nothing
// and takes as long. Its caller has a turn of the queue.
func (p *passwords) match(password, hash string) (bool, error) {
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
