package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// at returns a request from an address.
func at(t *testing.T, p *panel, r *http.Request, address string) *http.Request {
	t.Helper()
	return r.WithContext(from(t, p.auth, address))
}

// Whatever a source over its limit tries again is refused after the database has gone.
func TestLimits_ASourceOverItsLimitCostsNoStatement(t *testing.T) {
	for name, test := range map[string]struct {
		attempts int
		try      func(t *testing.T, p *panel, i int) error
		status   int
	}{
		"wrong passwords for one email": {10, func(t *testing.T, p *panel, _ int) error {
			_, err := p.auth.Login(from(t, p.auth, "192.0.2.1:1000"), email, "wrong")
			return err
		}, 429},
		"wrong passwords for many emails": {30, func(t *testing.T, p *panel, i int) error {
			_, err := p.auth.Login(from(t, p.auth, "[2001:db8::1]:1000"), fmt.Sprintf("user%d@example.com", i), "wrong")
			return err
		}, 429},
		"tokens of unknown keys": {60, func(t *testing.T, p *panel, i int) error {
			_, err := p.auth.Authenticate(at(t, p, bearer(p.forged(t, fmt.Sprint("key ", i))), "192.0.2.1:1000"))
			return err
		}, 503},
		"cookies of unknown keys": {60, func(t *testing.T, p *panel, i int) error {
			_, err := p.auth.Authenticate(at(t, p, cookie(p.forged(t, fmt.Sprint("key ", i))), "192.0.2.1:1000"))
			return err
		}, 503},
		"a token of a deleted device": {60, func(t *testing.T, p *panel, _ int) error {
			_, err := p.auth.Authenticate(at(t, p, bearer(p.deleted), "192.0.2.1:1000"))
			return err
		}, 503},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			p.user(t)
			device, token := p.device(t)
			p.deleted = token
			if err := p.db.DeleteDevice(t.Context(), db.Scope{All: true}, device.ID); err != nil {
				t.Fatal(err)
			}
			for i := range test.attempts + 1 {
				if err := test.try(t, p, i); i < test.attempts && problem.From(err).RetryAfter > 10*time.Second {
					t.Fatalf("attempt %d: %v", i, err)
				}
			}
			if err := p.db.Close(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				err := problem.From(test.try(t, p, 1000+i))
				if err.Status != test.status || err.RetryAfter == 0 {
					t.Errorf("over the limit: %v", err)
				}
			}
			p.clock.advance(2 * time.Minute)
			if err := problem.From(test.try(t, p, 2000)); err.Status != http.StatusInternalServerError {
				t.Errorf("after the window the database was not asked: %v", err)
			}
		})
	}
}

func TestLimits_ReplicasShareExactCounts(t *testing.T) {
	p := newPanel(t)
	replicas := []*auth.Limits{auth.NewLimits(p.db, p.clock.Now), auth.NewLimits(p.db, p.clock.Now)}
	limit := auth.Limit{Key: "test", Max: 25, Window: time.Minute}
	allowed := 0
	for i := range 100 {
		wait, err := replicas[i%2].Take(t.Context(), limit)
		if err != nil {
			t.Fatal(err)
		}
		if wait == 0 {
			allowed++
		}
	}
	if allowed != limit.Max {
		t.Errorf("%d attempts, want %d", allowed, limit.Max)
	}
	// A replica that remembers that the key is over its limit lets in what was uncounted.
	for range 2 { // The one over the limit is counted too.
		if err := replicas[0].Refund(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
	}
	if wait, err := replicas[0].Take(t.Context(), limit); err != nil || wait > 0 {
		t.Errorf("after a refund: wait %v, %v", wait, err)
	}
}

func TestLimits_NetworksAroundASourceHaveLimitsOfTheirOwn(t *testing.T) {
	p := newPanel(t)
	limits := auth.NewLimits(p.db, p.clock.Now)
	for name, test := range map[string]struct {
		address func(i int) string
		want    int
	}{
		"one address": {func(int) string { return "192.0.2.1:1" }, 5},
		"a /64":       {func(i int) string { return fmt.Sprintf("[2001:db8:1:1::%x]:1", i) }, 5},
		"a /56":       {func(i int) string { return fmt.Sprintf("[2001:db8:2:1%02x::1]:1", i) }, 10},
		"a /48":       {func(i int) string { return fmt.Sprintf("[2001:db8:3:%x00::1]:1", i) }, 20},
	} {
		allowed := 0
		for i := range 40 {
			err := limits.Check(from(t, p.auth, test.address(i)), perSource(from(t, p.auth, test.address(i)))...)
			if err == nil {
				allowed++
			} else if status(err) != 429 {
				t.Fatal(err)
			}
		}
		if allowed != test.want {
			t.Errorf("%s: %d attempts, want %d", name, allowed, test.want)
		}
	}
}

func perSource(ctx context.Context) []auth.Limit {
	return auth.PerSource(ctx, "test", 5, time.Minute)
}

func TestLimits_RememberABoundedNumberOfKeys(t *testing.T) {
	limits := auth.NewLimits(newPanel(t).db, nil)
	for i := range 200_000 {
		limits.Remember(fmt.Sprint(i), time.Hour)
	}
	if n := limits.Remembered(); n == 0 || n > 64<<10 {
		t.Errorf("%d keys are remembered", n)
	}
	if limits.Over(auth.Limit{Key: "199999"}) == 0 {
		t.Error("the newest is not")
	}
}

// forged returns a token of a key that the panel does not have.
func (p *panel) forged(t *testing.T, key string) string {
	t.Helper()
	if p.private == nil {
		_, p.private = p.key(t) // Once: later there may be no database.
	}
	return forge(t, jwa.EdDSA, p.private, key, map[string]any{"iss": "eclitunnel", "aud": "device", "sub": uuid.NewString(), "ver": 1})
}

// Who has an old token of a device cannot lock out who has its newest.
func TestLimits_ARevokedTokenDoesNotLockOutItsDevice(t *testing.T) {
	p := newPanel(t)
	device, old := p.device(t)
	device, err := p.db.RegenerateToken(t.Context(), db.Scope{All: true}, device.ID)
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 62 {
		if _, err := p.auth.Authenticate(at(t, p, bearer(old), "192.0.2.1:1000")); status(err) == http.StatusServiceUnavailable {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the old token is looked up each time")
	}
	for _, address := range []string{"192.0.2.1:1000", "198.51.100.1:1000"} {
		if _, err := p.auth.Authenticate(at(t, p, bearer(token), address)); err != nil {
			t.Errorf("the newest token from %s: %v", address, err)
		}
	}
}

func TestLimits_CookiesOfAnotherProgramDoNotLockOutASession(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	for i := range 62 {
		r := at(t, p, cookie(p.forged(t, "of another program")), "192.0.2.1:1000")
		r.AddCookie(&http.Cookie{Name: "session", Value: login.Token})
		if _, err := p.auth.Authenticate(r); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	for name, r := range map[string]*http.Request{
		"a session at the same address": bearer(login.Token),
		"a session's cookie":            cookie(login.Token),
	} {
		if _, err := p.auth.Authenticate(at(t, p, r, "192.0.2.1:1000")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
