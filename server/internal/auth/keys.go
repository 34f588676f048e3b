package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// keyring holds the panel's signing keys as last read from the database.
type keyring struct {
	panel     uuid.UUID    // The panel's identity, read with them.
	keys      []signingKey // Sorted by signsFrom, latest first.
	public    jwk.Set      // The public keys of all.
	published types.JWKS   // The same, as published.
	tickets   types.JWKS   // Those that verify tickets.
}

// signingKey is one key of the panel.
type signingKey struct {
	id        string
	seed      []byte
	private   jwk.Key
	created   time.Time
	signsFrom time.Time
	retired   bool // It no longer signs, nor verifies tickets.
}

// NewKey generates a key as a candidate for the database's next signing key.
func NewKey() (db.SigningKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return db.SigningKey{}, fmt.Errorf("generate signing key: %w", err)
	}
	return db.SigningKey{ID: rand.Text(), Seed: seed}, nil
}

// KeyStates returns the state of each key at a time. The keys are sorted as the database
// returns them, latest first.
func KeyStates(keys []db.SigningKey, now time.Time) []types.SigningKeyState {
	states := make([]types.SigningKeyState, len(keys))
	signs := false // The key that signs was found.
	for i, key := range keys {
		switch {
		case key.RetiredAt != nil:
			states[i] = types.SigningKeyStateRetired
		case key.SignsFrom.After(now):
			states[i] = types.SigningKeyStatePublished
		case !signs:
			states[i], signs = types.SigningKeyStateSigns, true
		default:
			states[i] = types.SigningKeyStateVerifies
		}
	}
	return states
}

// loadKeys reads the keys that all replicas share. It creates the first one if there
// is none; if several replicas do so at once, the database keeps one key.
func loadKeys(ctx context.Context, store Store) (*keyring, error) {
	candidate, err := NewKey()
	if err != nil {
		return nil, err
	}
	rows, err := store.EnsureSigningKey(ctx, candidate)
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return newKeyring(ctx, store, rows, &keyring{})
}

// newKeyring returns the keys of rows. A seed that cannot be read, because another replica
// has encrypted it with a key that this one was not given yet, is that of known, and the key
// is left out where known does not have it either.
func newKeyring(ctx context.Context, store Store, rows []db.SigningKey, known *keyring) (*keyring, error) {
	panel, err := store.PanelID(ctx)
	if err != nil {
		return nil, err
	}
	ring := &keyring{
		panel:     panel,
		public:    jwk.NewSet(),
		published: types.JWKS{Keys: []types.JWK{}},
		tickets:   types.JWKS{Keys: []types.JWK{}},
	}
	for _, row := range rows {
		if row.Seed == nil {
			row.Seed = known.seed(row.ID)
		}
		if row.Seed == nil {
			continue
		}
		if err := ring.add(row); err != nil {
			return nil, fmt.Errorf("load signing key %s: %w", row.ID, err)
		}
	}
	if len(ring.tickets.Keys) == 0 {
		return nil, errors.New("load signing keys: no active key")
	}
	return ring, nil
}

func (k *keyring) add(row db.SigningKey) error {
	if len(row.Seed) != ed25519.SeedSize {
		return fmt.Errorf("seed has %d bytes, want %d", len(row.Seed), ed25519.SeedSize)
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
		id: row.ID, seed: row.Seed, private: signer, created: row.CreatedAt, signsFrom: row.SignsFrom, retired: row.RetiredAt != nil,
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

// newJWK returns a key with its algorithm pinned, so that a token cannot choose
// another one.
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

// signer returns the key that signs at time now.
func (k *keyring) signer(now time.Time) jwk.Key {
	return k.pick(func(key signingKey) bool { return !key.signsFrom.After(now) })
}

// ticketSigner returns the key that signs tickets at time now for a tunnel server
// last connected at serverSeen: the newest key that the tunnel server has received,
// if there is one.
func (k *keyring) ticketSigner(now, serverSeen time.Time) jwk.Key {
	return k.pick(func(key signingKey) bool {
		return !key.signsFrom.After(now) && !key.created.Add(db.KeyPropagation).After(serverSeen)
	})
}

// pick returns the newest active key that is suitable. If there is none, as with a
// single key or a slow clock, it returns the oldest active key.
func (k *keyring) pick(suitable func(signingKey) bool) jwk.Key {
	var oldest jwk.Key
	for _, key := range k.keys {
		if key.retired {
			continue
		}
		if suitable(key) {
			return key.private
		}
		oldest = key.private
	}
	return oldest
}

// seed returns that of the key with the given id, or nil.
func (k *keyring) seed(id string) []byte {
	for _, key := range k.keys {
		if key.id == id {
			return key.seed
		}
	}
	return nil
}

func (k *keyring) has(id string) bool {
	return slices.ContainsFunc(k.keys, func(key signingKey) bool { return key.id == id })
}

// revokedIn reports whether later lacks a key that verified tickets, which means
// that the key was revoked.
func (k *keyring) revokedIn(later *keyring) bool {
	return slices.ContainsFunc(k.keys, func(key signingKey) bool { return !key.retired && !later.has(key.id) })
}

// ReloadKeys reads the signing keys again. It reports whether any were revoked since
// the last call; the tickets that they signed must then be replaced.
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
	ring, err := newKeyring(ctx, a.store, rows, a.keys.Load())
	if err != nil {
		return err
	}
	if len(ring.keys) < len(rows) {
		a.logger.WarnContext(ctx, "signing keys of other replicas are encrypted with a key that this one was not given: "+
			"it refuses what they sign until it is restarted with the same file of secret keys", slog.Int("count", len(rows)-len(ring.keys)))
	}
	a.loaded = number
	a.revoked = a.keys.Swap(ring).revokedIn(ring) || a.revoked
	return nil
}

// keysFor returns a keyring that includes the key with the given id, if it exists.
// A token signed on another replica can arrive before the notification of its key,
// and rejecting it would stop a device for good, so an unknown id reloads the keys.
// Concurrent requests with unknown ids share one reload. A source that has sent many gets
// none.
func (a *Auth) keysFor(ctx context.Context, id string) (*keyring, error) {
	if ring := a.keys.Load(); id == "" || ring.has(id) {
		return ring, nil
	}
	if err := checkTokens(a.limits.Over(unknownTokens(ctx)...)); err != nil {
		return nil, err
	}
	begun := a.loads.Load()
	a.reload.Lock()
	defer a.reload.Unlock()
	// A load that began after begun also began after the token was signed.
	if a.loaded <= begun {
		if err := a.reloadLocked(ctx); err != nil {
			return nil, err
		}
	}
	return a.keys.Load(), nil
}

// PanelID returns the identity of the panel, as last read.
func (a *Auth) PanelID() uuid.UUID { return a.keys.Load().panel }

// JWKS returns all public keys, as /.well-known/jwks.json publishes them.
func (a *Auth) JWKS() types.JWKS { return copyOf(a.keys.Load().published) }

// TicketKeys returns the public keys with which tunnel servers verify tickets:
// those of all keys that are not retired, including ones that do not sign yet.
func (a *Auth) TicketKeys() types.JWKS { return copyOf(a.keys.Load().tickets) }

func copyOf(keys types.JWKS) types.JWKS {
	return types.JWKS{Keys: append([]types.JWK{}, keys.Keys...)}
}
