package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// keyring holds the panel's signing keys.
type keyring struct {
	signer    jwk.Key // the newest key
	public    jwk.Set
	published types.JWKS
}

// loadKeys reads the keys all replicas share. The first replica ever to start
// makes one; of several that start at once, the database keeps one's.
func loadKeys(ctx context.Context, store Store, now time.Time) (*keyring, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	rows, err := store.EnsureSigningKey(ctx, db.SigningKey{ID: rand.Text(), Seed: seed, CreatedAt: now})
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	if len(rows) == 0 {
		return nil, errors.New("load signing keys: there is none")
	}
	ring := &keyring{public: jwk.NewSet(), published: types.JWKS{Keys: []types.JWK{}}}
	for i, row := range rows {
		if err := ring.add(row, i == 0); err != nil {
			return nil, fmt.Errorf("load signing key %s: %w", row.ID, err)
		}
	}
	return ring, nil
}

func (k *keyring) add(row db.SigningKey, sign bool) error {
	if len(row.Seed) != ed25519.SeedSize {
		return fmt.Errorf("seed has %d bytes", len(row.Seed))
	}
	private := ed25519.NewKeyFromSeed(row.Seed)
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("no public key")
	}
	if sign {
		signer, err := newJWK(private, row.ID)
		if err != nil {
			return err
		}
		k.signer = signer
	}
	verifier, err := newJWK(public, row.ID)
	if err != nil {
		return err
	}
	if err := k.public.AddKey(verifier); err != nil {
		return err
	}
	k.published.Keys = append(k.published.Keys, types.JWK{
		Kty: jwa.OKP.String(),
		Crv: jwa.Ed25519.String(),
		X:   base64.RawURLEncoding.EncodeToString(public),
		Kid: row.ID,
		Alg: jwa.EdDSA.String(),
		Use: string(jwk.ForSignature),
	})
	return nil
}

// newJWK pins the algorithm on a key, so that a token cannot choose another.
func newJWK(raw any, id string) (jwk.Key, error) {
	key, err := jwk.FromRaw(raw)
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{
		jwk.KeyIDKey:     id,
		jwk.AlgorithmKey: jwa.EdDSA,
		jwk.KeyUsageKey:  jwk.ForSignature,
	} {
		if err := key.Set(name, value); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// JWKS returns the public keys, as /.well-known/jwks.json publishes them and
// tunnel servers get them.
func (a *Auth) JWKS() types.JWKS {
	return types.JWKS{Keys: append([]types.JWK{}, a.keys.published.Keys...)}
}
