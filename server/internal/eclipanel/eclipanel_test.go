package eclipanel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/eclipanel"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// service is an EcliPanel that accepts credentials that end with "valid" or "other", until the latter has ended.
type service struct {
	provider *eclipanel.Provider
	db       *db.DB
	now      atomic.Pointer[time.Time]
	asked    atomic.Int32
	ended    atomic.Bool
	status   atomic.Int32 // Of a page that answers everybody; 0 is none does.
}

func newService(t *testing.T) *service {
	s := &service{db: dbtest.New(t)}
	s.advance(0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if status := int(s.status.Load()); status != 0 {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		credential := r.Header.Get("Authorization") + r.Header.Get("X-Api-Key") + r.Header.Get("Cookie")
		if !strings.HasSuffix(credential, "valid") && (s.ended.Load() || !strings.HasSuffix(credential, "other")) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"Invalid session"}`)
			return
		}
		_, _ = io.WriteString(w, `{"user":{"id":"17","email":"ann@example.com","role":"admin","orgs":[]}}`)
	}))
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.provider, err = eclipanel.New(eclipanel.Options{
		Store: s.db, URL: base, CacheTime: 20 * time.Second, Now: func() time.Time { return *s.now.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.provider.Close)
	return s
}

func (s *service) advance(d time.Duration) {
	now := time.Now()
	if before := s.now.Load(); before != nil {
		now = before.Add(d)
	}
	s.now.Store(&now)
}

// ask returns the status of a refusal, 200 for none.
func (s *service) ask(t *testing.T, token string) int {
	t.Helper()
	return s.askBy(t, auth.Credential{Header: "Authorization", Value: "Bearer " + token})
}

func (s *service) askBy(t *testing.T, credential auth.Credential) int {
	t.Helper()
	_, err := s.provider.Holder(t.Context(), credential)
	var refusal *problem.Error
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &refusal):
		return refusal.Status
	}
	t.Fatal(err)
	return 0
}

func TestProvider_KeepsAnswersForTheCacheTime(t *testing.T) {
	s := newService(t)
	for _, step := range []struct {
		after time.Duration
		asked int32
	}{{0, 2}, {19 * time.Second, 2}, {time.Second, 4}, {10 * time.Second, 4}, {10 * time.Second, 6}} {
		s.advance(step.after)
		if status := s.ask(t, "valid"); status != http.StatusOK {
			t.Errorf("valid: %d", status)
		}
		if status := s.ask(t, "unknown"); status != http.StatusUnauthorized {
			t.Errorf("unknown: %d", status)
		}
		if asked := s.asked.Load(); asked != step.asked {
			t.Errorf("asked %d times, want %d", asked, step.asked)
		}
	}
	holder, err := s.provider.Holder(t.Context(), auth.Credential{Header: "Authorization", Value: "Bearer valid"})
	user := holder.User
	if err != nil || user.Role != "admin" {
		t.Fatal(user, err)
	}
	// Deleted here, and somebody new there.
	if _, err := s.db.CreateUser(t.Context(), "local@example.com", "hash", "admin"); err != nil {
		t.Fatal(err)
	}
	if err := s.db.DeleteUser(t.Context(), user.ID, db.DevicesOf{}); err != nil {
		t.Fatal(err)
	}
	holder, err = s.provider.Holder(t.Context(), auth.Credential{Header: "Authorization", Value: "Bearer valid"})
	again := holder.User
	if err != nil || again.ID == user.ID || again.Email != user.Email {
		t.Errorf("after the deletion: %+v, %v", again, err)
	}
}

// TestProvider_AFloodOfBadCredentialsEnds has one source send more than EcliPanel should
// see.
func TestProvider_AFloodOfBadCredentialsEnds(t *testing.T) {
	s := newService(t)
	if status := s.ask(t, "valid"); status != http.StatusOK {
		t.Fatal(status)
	}
	const allowed = 300
	for n := range allowed {
		if status := s.ask(t, fmt.Sprint(n)); status != http.StatusUnauthorized {
			t.Fatalf("%d: %d", n, status)
		}
	}
	s.ask(t, "one more")
	asked := s.asked.Load()
	for n := range 100 {
		if status := s.ask(t, fmt.Sprint("more", n)); status != http.StatusServiceUnavailable {
			t.Fatalf("%d more: %d", n, status)
		}
	}
	if s.asked.Load() != asked || s.ask(t, "valid") != http.StatusOK {
		t.Errorf("asked %d times more; who is known gets %d", s.asked.Load()-asked, s.ask(t, "valid"))
	}
	s.advance(time.Minute)
	if status := s.ask(t, "valid"); status != http.StatusOK {
		t.Errorf("after a minute: %d", status)
	}
}

// TestProvider_AFloodOfUnexpectedAnswersEnds has one source send more than EcliPanel, or what stands before it, takes
// from the panel.
func TestProvider_AFloodOfUnexpectedAnswersEnds(t *testing.T) {
	s := newService(t)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusForbidden, http.StatusOK} {
		s.status.Store(0)
		if got := s.ask(t, "valid"); got != http.StatusOK {
			t.Fatal(got)
		}
		s.advance(time.Minute)
		s.status.Store(int32(status))
		before := s.asked.Load()
		for n := range 400 {
			if got := s.ask(t, fmt.Sprint(status, " ", n)); got != http.StatusServiceUnavailable {
				t.Fatalf("%d for the status %d: %d", n, status, got)
			}
		}
		if asked := s.asked.Load() - before; asked != 301 {
			t.Errorf("asked %d times with the status %d", asked, status)
		}
		before = s.asked.Load()
		for range 3 { // Who is known is asked about, and does not count.
			s.ask(t, "valid")
			s.advance(time.Second)
		}
		if asked := s.asked.Load() - before; asked != 3 {
			t.Errorf("asked %d times about who is known, with the status %d", asked, status)
		}
		s.advance(time.Minute)
	}
}

// TestProvider_AFloodConcernsNobodyWhoIsKnown has a source with people on it send too many bad credentials.
func TestProvider_AFloodConcernsNobodyWhoIsKnown(t *testing.T) {
	s := newService(t)
	known := []auth.Credential{
		{Header: "Authorization", Value: "Bearer valid"}, {Header: "X-Api-Key", Value: "valid"}, {Header: "Cookie", Value: "token=valid"},
	}
	everybody := func(when string) {
		t.Helper()
		for _, credential := range known {
			if status := s.askBy(t, credential); status != http.StatusOK {
				t.Errorf("%s, by %s: %d", when, credential.Header, status)
			}
		}
	}
	flood := func() {
		t.Helper()
		for n := 0; s.ask(t, fmt.Sprint("bad", n)) != http.StatusServiceUnavailable; n++ {
			if n > 1000 {
				t.Fatal("the flood does not end")
			}
		}
	}
	everybody("at first")
	if status := s.ask(t, "other"); status != http.StatusOK {
		t.Fatal(status)
	}
	s.advance(30 * time.Minute) // Nothing is in the cache any more.
	flood()
	asked := s.asked.Load()
	everybody("during the flood")
	if got := s.asked.Load() - asked; got != 3 {
		t.Errorf("asked %d times about three who are known", got)
	}
	if status := s.ask(t, "new valid"); status != http.StatusServiceUnavailable {
		t.Errorf("who is not known: %d", status)
	}
	// A session that ends is not known any more.
	s.ended.Store(true)
	if status := s.ask(t, "other"); status != http.StatusUnauthorized {
		t.Errorf("whose session has ended: %d", status)
	}
	s.advance(30 * time.Second)
	if status := s.ask(t, "other"); status != http.StatusServiceUnavailable {
		t.Errorf("whose session ended before: %d", status)
	}

	// A credential that was not used for an hour is not known any more.
	s.advance(45 * time.Minute)
	flood()
	everybody("within the hour")
	s.advance(time.Hour)
	flood()
	for _, credential := range known {
		if status := s.askBy(t, credential); status != http.StatusServiceUnavailable {
			t.Errorf("after an hour, by %s: %d", credential.Header, status)
		}
	}
}

func TestProvider_CloseEndsWhatIsUnderWay(t *testing.T) {
	s := newService(t)
	s.provider.Close()
	if _, err := s.provider.Holder(context.Background(), auth.Credential{Header: "Authorization", Value: "Bearer valid"}); err == nil {
		t.Error("a closed provider asks")
	}
	s.provider.Close()
}
