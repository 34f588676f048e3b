package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// keyring holds the panel's signing keys as they were when they were last read.
type keyring struct {
	keys      []signingKey // The last to sign first.
	public    jwk.Set      // All of them.
	published types.JWKS   // All of them.
	tickets   types.JWKS   // Those that verify tickets.
}

// signingKey is one key of the panel.
type signingKey struct {
	id        string
	private   jwk.Key
	created   time.Time
	signsFrom time.Time
	retired   bool // It signs nothing any more, and verifies no ticket.
}

// NewKey makes a key that the database may take into use.
func NewKey() (db.SigningKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return db.SigningKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return db.SigningKey{ID: rand.Text(), Seed: seed}, nil
}

// loadKeys reads the keys all replicas share. The first replica ever to start
// makes one; of several that start at once, the database keeps one's.
func loadKeys(ctx context.Context, store Store) (*keyring, error) {
	candidate, err := NewKey()
	if err != nil {
		return nil, err
	}
	rows, err := store.EnsureSigningKey(ctx, candidate)
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return newKeyring(rows)
}

func newKeyring(rows []db.SigningKey) (*keyring, error) {
	ring := &keyring{
		public:    jwk.NewSet(),
		published: types.JWKS{Keys: []types.JWK{}},
		tickets:   types.JWKS{Keys: []types.JWK{}},
	}
	for _, row := range rows {
		if err := ring.add(row); err != nil {
			return nil, fmt.Errorf("load signing key %s: %w", row.ID, err)
		}
	}
	if len(ring.tickets.Keys) == 0 {
		return nil, errors.New("load signing keys: there is none")
	}
	return ring, nil
}

func (k *keyring) add(row db.SigningKey) error {
	if len(row.Seed) != ed25519.SeedSize {
		return fmt.Errorf("seed has %d bytes", len(row.Seed))
	}
	private := ed25519.NewKeyFromSeed(row.Seed)
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("no public key")
	}
	signer, err := newJWK(private, row.ID)
	if err != nil {
		return err
	}
	verifier, err := newJWK(public, row.ID)
	if err != nil {
		return err
	}
	if err := k.public.AddKey(verifier); err != nil {
		return err
	}
	k.keys = append(k.keys, signingKey{
		id: row.ID, private: signer, created: row.CreatedAt, signsFrom: row.SignsFrom, retired: row.RetiredAt != nil,
	})
	published := types.JWK{
		Kty: jwa.OKP.String(),
		Crv: jwa.Ed25519.String(),
		X:   base64.RawURLEncoding.EncodeToString(public),
		Kid: row.ID,
		Alg: jwa.EdDSA.String(),
		Use: string(jwk.ForSignature),
	}
	k.published.Keys = append(k.published.Keys, published)
	if row.RetiredAt == nil {
		k.tickets.Keys = append(k.tickets.Keys, published)
	}
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

// signer is the key that signs at a time.
func (k *keyring) signer(now time.Time) jwk.Key {
	return k.pick(func(key signingKey) bool { return !key.signsFrom.After(now) })
}

// ticketSigner is the key that signs, at a time, tickets to a tunnel server that
// was last connected at another: never one that it may not have heard of, as
// long as there is one that it has.
func (k *keyring) ticketSigner(now, serverSeen time.Time) jwk.Key {
	return k.pick(func(key signingKey) bool {
		return !key.signsFrom.After(now) && !key.created.Add(db.KeyNews).After(serverSeen)
	})
}

// pick returns the latest key that will do, otherwise the oldest that has not
// been retired: the only one there is, or that of a panel whose clock is slow.
func (k *keyring) pick(will func(signingKey) bool) jwk.Key {
	var oldest jwk.Key
	for _, key := range k.keys {
		if key.retired {
			continue
		}
		if will(key) {
			return key.private
		}
		oldest = key.private
	}
	return oldest
}

func (k *keyring) knows(id string) bool {
	return slices.ContainsFunc(k.keys, func(key signingKey) bool { return key.id == id })
}

// lost reports whether a key that verified tickets is not in later at all, as
// one that was revoked.
func (k *keyring) lost(later *keyring) bool {
	return slices.ContainsFunc(k.keys, func(key signingKey) bool { return !key.retired && !later.knows(key.id) })
}

// ReloadKeys reads the signing keys again. It reports whether some were revoked
// since it was last called: tickets that they signed have to be replaced.
func (a *Auth) ReloadKeys(ctx context.Context) (revoked bool, err error) {
	a.reload.Lock()
	defer a.reload.Unlock()
	if err := a.reloadLocked(ctx); err != nil {
		return false, err
	}
	revoked, a.revoked = a.revoked, false
	return revoked, nil
}

func (a *Auth) reloadLocked(ctx context.Context) error {
	number := a.loads.Add(1)
	rows, err := a.store.SigningKeys(ctx)
	if err != nil {
		return fmt.Errorf("load signing keys: %w", err)
	}
	ring, err := newKeyring(rows)
	if err != nil {
		return err
	}
	a.loaded = number
	a.revoked = a.keys.Swap(ring).lost(ring) || a.revoked
	return nil
}

// keysFor returns keys among which the one with the id is, if there is such a
// key now. The news of a key may be on its way here when a token that it signed
// on another replica arrives, and to call that token dead would stop a device
// for good. Who invents ids has the keys read once for all who do so at a time.
func (a *Auth) keysFor(ctx context.Context, id string) (*keyring, error) {
	if ring := a.keys.Load(); id == "" || ring.knows(id) {
		return ring, nil
	}
	begun := a.loads.Load()
	a.reload.Lock()
	defer a.reload.Unlock()
	// One that began since began after the token was signed.
	if a.loaded <= begun {
		if err := a.reloadLocked(ctx); err != nil {
			return nil, err
		}
	}
	return a.keys.Load(), nil
}

// JWKS returns the public keys of everything the panel signs, as
// /.well-known/jwks.json publishes them.
func (a *Auth) JWKS() types.JWKS { return copyOf(a.keys.Load().published) }

// TicketKeys returns the public keys of tickets, as tunnel servers get them:
// those that sign, have signed or will.
func (a *Auth) TicketKeys() types.JWKS { return copyOf(a.keys.Load().tickets) }

func copyOf(keys types.JWKS) types.JWKS {
	return types.JWKS{Keys: append([]types.JWK{}, keys.Keys...)}
}
