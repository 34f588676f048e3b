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

// keyStore is a database whose keys a test decides on.
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

// withKeys returns a replica on the panel's database that has keys of the test's
// own.
func (p *panel) withKeys(t *testing.T, keys ...db.SigningKey) (*auth.Auth, *keyStore) {
	t.Helper()
	store := &keyStore{DB: p.db, keys: keys}
	a, err := auth.New(t.Context(), auth.Options{Store: store, PublicURL: &url.URL{Scheme: "https", Host: "panel"}, Now: p.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return a, store
}

// newKey makes a key that is published at a time and signs from another.
func newKey(t *testing.T, id string, published, signs time.Time) db.SigningKey {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	key.ID, key.CreatedAt, key.SignsFrom = id, published, signs
	return key
}

// keyOf is the id of the key that signed a token.
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

func TestKeys_TheNextSignsFromItsTimeOn(t *testing.T) {
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
		"connected":             {p.clock.Now(), "second"},
		"away since before":     {now.Add(-time.Minute), "first"},
		"gone before it heard":  {now.Add(db.KeyNews - time.Second), "first"},
		"gone once it had":      {now.Add(db.KeyNews), "second"},
		"never seen by anybody": {time.Time{}, "first"},
	} {
		if got := ticket(test.seen); got != test.want {
			t.Errorf("a ticket to a tunnel server %s is signed by %s", name, got)
		}
	}

	// Retired, the first one signs no more, whoever knows no other.
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
	// That it is gone then is no revocation.
	store.set(nil, store.keys[0])
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
	store.set(nil, newKey(t, "third", now, now))
	if revoked, err := a.ReloadKeys(t.Context()); err != nil || !revoked {
		t.Errorf("revoked %v, %v", revoked, err)
	}
}

func TestKeys_ASlowClockSignsWithWhatThereIs(t *testing.T) {
	p := newPanel(t)
	later := p.clock.Now().Add(time.Minute)
	a, _ := p.withKeys(t, newKey(t, "only", later, later))
	token, err := a.DeviceToken(uuid.New(), db.KindClient, 1)
	if got := keyOf(t, token, err); got != "only" {
		t.Errorf("%s signs", got)
	}
}

func TestAuthenticate_ReadsTheKeysForOneItHasNotHeardOf(t *testing.T) {
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

	// Not to know is no reason to call a token dead: its device would stop.
	store.set(errors.New("the database is away"), first)
	if _, err := slow.Authenticate(bearer(token)); status(err) != 500 {
		t.Errorf("while the database is away: %v", err)
	}
	store.set(nil, second, first)
	principal, err := slow.Authenticate(bearer(token))
	if err != nil || principal.TokenKey != "second" {
		t.Errorf("signed by %q, %v", principal.TokenKey, err)
	}
	reads := store.reads
	if _, err := slow.Authenticate(bearer(token)); err != nil || store.reads != reads {
		t.Errorf("read again for a key that is known: %v", err)
	}
	_, stranger := p.key(t)
	forged := forge(t, jwa.EdDSA, stranger, "invented", map[string]any{"iss": "eclitunnel", "aud": "device"})
	if _, err := slow.Authenticate(bearer(forged)); status(err) != 401 {
		t.Errorf("an invented key: %v", err)
	}
}

// Keys that are read for a token's sake must not hide a revocation from who replaces tickets.
func TestReloadKeys_ReportsARevocationThatATokenBroughtFirst(t *testing.T) {
	p := newPanel(t)
	now := p.clock.Now()
	leaked, fresh := newKey(t, "leaked", now.Add(-time.Hour), now.Add(-time.Hour)), newKey(t, "fresh", now, now)
	a, store := p.withKeys(t, leaked)
	store.set(nil, fresh)
	_, stranger := p.key(t)
	forged := forge(t, jwa.EdDSA, stranger, "invented", map[string]any{"iss": "eclitunnel", "aud": "device"})
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
