package auth

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/eclitunnel/eclitunnel/db"
)

// NewAPIKeyPrefix returns what a new API key begins with, for people to recognise it by before it exists.
func NewAPIKeyPrefix() string { return newAPIKey()[:apiKeyShown] }

// CompleteAPIKey makes a new API key with a prefix of [NewAPIKeyPrefix], and returns it, which is stored nowhere, and
// the hash by which it is found. What follows the prefix is 25 digits of base 62 at random, of 148 bits.
func CompleteAPIKey(prefix string) (text string, hash []byte) {
	random := newAPIKey()
	text = prefix + random[apiKeyShown:len(random)-apiKeySum]
	text += apiKeyChecksum(text)
	sum := sha256.Sum256([]byte(text))
	return text, sum[:]
}

// RevokeAPIKey revokes an API key by its text (RFC 7009). A key that is not valid is no error, but counts against the
// caller in ctx, whom nothing else names: it returns a rate_limited error after too many.
func (a *Auth) RevokeAPIKey(ctx context.Context, text string) error {
	limits := PerSource(ctx, "revoke:address", unknownKeyFailures, unknownKeyWindow)
	// Counted before the key is looked for, so that concurrent guesses all count.
	if err := a.limits.Check(ctx, limits...); err != nil || !isAPIKey(text) {
		return err
	}
	hash := sha256.Sum256([]byte(text))
	key, user, err := a.store.APIKeyByHash(ctx, hash[:])
	if errors.Is(err, db.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx = db.WithActor(ctx, Principal{User: user, Key: &key}.actor(ctx))
	if _, err := a.store.RevokeAPIKey(ctx, hash[:]); err != nil {
		return err
	}
	a.apiKeys.forget(hash)
	return a.limits.Refund(ctx, limits...)
}
