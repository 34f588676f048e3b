package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// keyStore is a database whose signing keys the test sets.
type keyStore struct {
	*db.DB
	mu    sync.Mutex
	keys  []db.SigningKey
	err   error
	reads int
}

func (s *keyStore) EnsureSigningKey(ctx context.Context, _ db.SigningKey) ([]db.SigningKey, error) {
	return s.SigningKeys(ctx)
}

func (s *keyStore) SigningKeys(context.Context) ([]db.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.keys, s.err
}

func (s *keyStore) set(err error, keys ...db.SigningKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.err = keys, err
}

// withKeys returns a replica on the panel's database with the given signing keys.
func (p *panel) withKeys(t *testing.T, keys ...db.SigningKey) (*auth.Auth, *keyStore) {
	t.Helper()
	store := &keyStore{DB: p.db, keys: keys}
	a, err := auth.New(t.Context(), auth.Options{Store: store, PublicURL: &url.URL{Scheme: "https", Host: "panel"}, Now: p.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return a, store
}

// newKey creates a key with the given publication time and start of signing.
func newKey(t *testing.T, id string, published, signs time.Time) db.SigningKey {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key.ID, key.CreatedAt, key.SignsFrom = id, published, signs
	return key
}

// keyOf returns the id of the key that signed a token.
func keyOf(t *testing.T, token string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	return header.Kid
}

func TestKeys_NextKeySignsFromItsStartTime(t *testing.T) {
	p := newPanel(t)
	now := p.clock.Now()
	a, store := p.withKeys(t, newKey(t, "second", now, now.Add(24*time.Hour)), newKey(t, "first", now.Add(-time.Hour), now.Add(-time.Hour)))
	device := uuid.New()
	signs := func() string {
		token, err := a.DeviceToken(device, db.KindClient, 1)
		return keyOf(t, token, err)
	}
	ticket := func(seen time.Time) string {
		token, _, err := a.Ticket(device, uuid.New(), 1, seen)
		return keyOf(t, token, err)
	}
	p.clock.advance(24*time.Hour - time.Second)
	if got := signs(); got != "first" {
		t.Errorf("%s signs a second early", got)
	}
	p.clock.advance(time.Second)
	if got := signs(); got != "second" {
		t.Errorf("%s signs on time", got)
	}
	for name, test := range map[string]struct {
		seen time.Time
		want string
	}{
		"connected":                          {p.clock.Now(), "second"},
		"away since before":                  {now.Add(-time.Minute), "first"},
		"gone before the new key reached it": {now.Add(db.KeyPropagation - time.Second), "first"},
		"gone after the new key reached it":  {now.Add(db.KeyPropagation), "second"},
		"never connected":                    {time.Time{}, "first"},
	} {
		if got := ticket(test.seen); got != test.want {
			t.Errorf("a ticket to a tunnel server %s is signed by %s", name, got)
		}
	}

	// Once retired, the first key no longer signs, not even for a tunnel server that
	// knows no other.
	retired := store.keys[1]
	retired.RetiredAt = &now
	store.set(nil, store.keys[0], retired)
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	if got := ticket(time.Time{}); got != "second" {
		t.Errorf("%s signs a ticket", got)
	}
	if got := a.TicketKeys().Keys; len(got) != 1 || got[0].Kid != "second" {
		t.Errorf("tunnel servers get %+v", got)
	}
	if got := a.JWKS().Keys; len(got) != 2 {
		t.Errorf("published are %+v", got)
	}
	// Its deletion afterwards is not a revocation.
	store.set(nil, store.keys[0])
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	store.set(nil, newKey(t, "third", now, now))
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || !revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
}

func TestKeys_SlowClockSignsWithTheOnlyKey(t *testing.T) {
	p := newPanel(t)
	later := p.clock.Now().Add(time.Minute)
	a, _ := p.withKeys(t, newKey(t, "only", later, later))
	token, err := a.DeviceToken(uuid.New(), db.KindClient, 1)
	if got := keyOf(t, token, err); got != "only" {
		t.Errorf("%s signs", got)
	}
}

func TestAuthenticate_ReloadsKeysForAnUnknownKey(t *testing.T) {
	p := newPanel(t)
	device, _ := p.device(t)
	now := p.clock.Now()
	first, second := newKey(t, "first", now.Add(-time.Hour), now.Add(-time.Hour)), newKey(t, "second", now, now)
	slow, store := p.withKeys(t, first)
	quick, _ := p.withKeys(t, second, first)
	token, err := quick.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}

	// The token must not be called invalid: its device would stop for good.
	store.set(errors.New("the database is down"), first)
	if _, err := slow.Authenticate(bearer(token)); status(err) != 500 {
		t.Errorf("while the database is down: %v", err)
	}
	store.set(nil, second, first)
	principal, err := slow.Authenticate(bearer(token))
	if err != nil || principal.TokenKey != "second" {
		t.Errorf("signed by %q, %v", principal.TokenKey, err)
	}
	reads := store.reads
	if _, err := slow.Authenticate(bearer(token)); err != nil || store.reads != reads {
		t.Errorf("reloaded for a known key: %v", err)
	}
	_, private := p.key(t)
	forged := forge(t, jwa.EdDSA, private, "invented", map[string]any{"iss": "eclitunnel", "aud": "device"})
	if _, err := slow.Authenticate(bearer(forged)); status(err) != 401 {
		t.Errorf("an invented key: %v", err)
	}
}

// A reload for an unknown key must not hide a revocation from ReloadKeys, whose caller
// replaces tickets.
func TestReloadKeys_ReportsRevocationFoundByAnEarlierReload(t *testing.T) {
	p := newPanel(t)
	now := p.clock.Now()
	leaked, fresh := newKey(t, "leaked", now.Add(-time.Hour), now.Add(-time.Hour)), newKey(t, "fresh", now, now)
	a, store := p.withKeys(t, leaked)
	store.set(nil, fresh)
	_, private := p.key(t)
	forged := forge(t, jwa.EdDSA, private, "invented", map[string]any{"iss": "eclitunnel", "aud": "device"})
	if _, err := a.Authenticate(bearer(forged)); status(err) != 401 {
		t.Fatal(err)
	}
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || !revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || revoked {
		t.Errorf("again: revoked %v, %v", revoked, err)
	}
}

// TestReloadKeys_KeepsWhatItCannotReadAnyMore: while the file of secret keys is replaced,
// replica by replica, one that has the old file goes on with the keys that it knows.
func TestReloadKeys_KeepsWhatItCannotReadAnyMore(t *testing.T) {
	p := newPanel(t)
	now := p.clock.Now()
	first, second := newKey(t, "first", now.Add(-time.Hour), now.Add(-time.Hour)), newKey(t, "second", now, now)
	a, store := p.withKeys(t, first)
	device := uuid.New()
	token, err := a.DeviceToken(device, db.KindClient, 1)
	if keyOf(t, token, err) != "first" {
		t.Fatal("another key signs")
	}
	sealed, unknown := first, second
	sealed.Seed, unknown.Seed = nil, nil
	store.set(nil, unknown, sealed)
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || revoked {
		t.Fatalf("reload: revoked %t, %v", revoked, err)
	}
	again, err := a.DeviceToken(device, db.KindClient, 1)
	if got := keyOf(t, again, err); got != "first" {
		t.Errorf("%s signs", got)
	}
	// It is revoked nevertheless.
	store.set(nil, second)
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || !revoked {
		t.Errorf("revoked %t, %v", revoked, err)
	}
	// Nothing is left to go on with.
	store.set(nil, unknown)
	if _, err := a.ReloadKeys(t.Context()); err != nil {
		t.Errorf("a key that is known: %v", err)
	}
	other := newKey(t, "other", now, now)
	other.Seed = nil
	store.set(nil, other)
	if _, err := a.ReloadKeys(t.Context()); err == nil {
		t.Error("a replica without keys goes on")
	}
}
