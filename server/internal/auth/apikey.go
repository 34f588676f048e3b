package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// An API key is apiKeyPrefix, a random number, and a checksum of all before it, the numbers
// in base 62 with leading zeros: etk_[0-9A-Za-z]{39}. By that pattern scanners find keys
// that were published, and the checksum tells them from other text without asking a panel.
const (
	apiKeyHeader = "X-API-Key" //nolint:gosec // the name of a header
	apiKeyPrefix = "etk_"

	apiKeyBytes  = 24
	apiKeyRandom = 33 // Digits: 62^33 is more than 256^24.
	apiKeySum    = 6  // Digits: 62^6 is more than 2^32.
	apiKeyLength = len(apiKeyPrefix) + apiKeyRandom + apiKeySum
	// apiKeyShown is how many characters are kept for people to recognise a key by. The
	// others have 144 random bits.
	apiKeyShown = len(apiKeyPrefix) + 8

	// unknownKeyFailures is the maximum number of unknown keys within unknownKeyWindow, per
	// source.
	unknownKeyFailures = 60
	unknownKeyWindow   = time.Minute

	// maxSeenKeys bounds the keys that a replica remembers, of about 100 bytes each.
	maxSeenKeys = 16 << 10
)

var errDeadAPIKey = problem.Unauthorized("This API key is not valid, or is no longer valid.")

type keyHash [sha256.Size]byte

// apiKeys is what a replica remembers of API keys. It is safe for concurrent use.
type apiKeys struct {
	mu   sync.Mutex
	seen map[keyHash]struct{} // Keys that were valid.
}

// NewAPIKey makes a key for its owner, who is in scope, and returns it as text, which is
// stored nowhere. Of key, the caller sets the owner, Name, Scopes and ExpiresAt. It
// returns the errors of [db.DB.CreateAPIKey].
func (a *Auth) NewAPIKey(ctx context.Context, scope db.Scope, key db.APIKey) (string, db.APIKey, error) {
	text := newAPIKey()
	hash := sha256.Sum256([]byte(text)) // It needs no salt and no stretching: the key is random.
	key.Prefix, key.CreatedAt = text[:apiKeyShown], a.now()
	created, err := a.store.CreateAPIKey(ctx, scope, key, hash[:])
	if err != nil {
		return "", db.APIKey{}, err
	}
	return text, created, nil
}

func newAPIKey() string {
	var random [apiKeyBytes]byte
	_, _ = rand.Read(random[:]) // It never fails.
	text := apiKeyPrefix + base62(new(big.Int).SetBytes(random[:]), apiKeyRandom)
	return text + apiKeyChecksum(text)
}

func apiKeyChecksum(text string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(text)))), apiKeySum)
}

func base62(number *big.Int, digits int) string {
	text := number.Text(62)
	return strings.Repeat("0", digits-len(text)) + text
}

// isAPIKey reports whether a text has the form of a key, and its checksum.
func isAPIKey(text string) bool {
	if len(text) != apiKeyLength || !strings.HasPrefix(text, apiKeyPrefix) {
		return false
	}
	sum := len(text) - apiKeySum
	return apiKeyChecksum(text[:sum]) == text[sum:]
}

// apiKey returns the caller of an API key.
func (a *Auth) apiKey(ctx context.Context, text string) (Principal, error) {
	if !isAPIKey(text) {
		return Principal{}, errDeadAPIKey
	}
	hash := keyHash(sha256.Sum256([]byte(text)))
	limits := PerSource(ctx, "key:address", unknownKeyFailures, unknownKeyWindow)
	// Valid keys at the address of somebody with unknown ones are not concerned.
	if !a.apiKeys.hasSeen(hash) {
		if err := checkTokens(a.limits.Over(limits...)); err != nil {
			return Principal{}, err
		}
	}
	key, user, err := a.store.APIKeyByHash(ctx, hash[:])
	switch {
	case errors.Is(err, db.ErrNotFound):
		a.apiKeys.forget(hash)
		if _, err := a.limits.Take(ctx, limits...); err != nil {
			return Principal{}, err
		}
		return Principal{}, errDeadAPIKey
	case err != nil:
		return Principal{}, err
	case key.ExpiresAt != nil && !a.now().Before(*key.ExpiresAt):
		return Principal{}, problem.Unauthorized("This API key has expired.")
	case user != nil && user.Suspended:
		return Principal{}, problem.Unauthorized("The user of this API key is suspended.")
	}
	a.apiKeys.remember(hash)
	a.usedKey(ctx, key)
	return Principal{User: user, Key: &key}, nil
}

func (k *apiKeys) hasSeen(hash keyHash) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.seen[hash]
	return ok
}

func (k *apiKeys) forget(hash keyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seen, hash)
}

// remember remembers that a key is valid.
func (k *apiKeys) remember(hash keyHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.seen[hash]; !ok && len(k.seen) >= maxSeenKeys {
		for other := range k.seen { // In no order.
			delete(k.seen, other)
			break
		}
	}
	k.seen[hash] = struct{}{}
}
