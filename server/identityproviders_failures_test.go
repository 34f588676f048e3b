package server_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// TestIdentityProviders_NoRedirectIsFollowedAndFailuresSayTheirReason has each endpoint that
// the panel asks during a login send it to another server, fail, or answer something else. The
// metadata are those of server/internal/oauth.
func TestIdentityProviders_NoRedirectIsFollowedAndFailuresSayTheirReason(t *testing.T) {
	var reached atomic.Int32
	another := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(another.Close)
	e := newOAuthServer(t)
	var keys atomic.Pointer[http.HandlerFunc]
	company := newOIDC(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if answer := keys.Load(); answer != nil && strings.HasSuffix(r.URL.Path, "/jwks.json") {
				(*answer)(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	p := servertest.Start(t, withProviders(t, e.settings(), oidcSettings("company", company)))
	e.set(func() { e.person = map[string]any{"sub": "42"} })
	atPath := func(path string) func(answer http.HandlerFunc) {
		return func(answer http.HandlerFunc) {
			e.set(func() { e.answers = map[string]http.HandlerFunc{path: answer} })
		}
	}
	for endpoint, test := range map[string]struct {
		provider string
		set      func(answer http.HandlerFunc)
	}{
		"token":    {"eclipanel", atPath("/api/oauth/token")},
		"userinfo": {"eclipanel", atPath("/api/oauth/userinfo")},
		"keys":     {"company", func(answer http.HandlerFunc) { keys.Store(&answer) }},
	} {
		for what, failure := range map[string]struct {
			reason string
			answer http.HandlerFunc
		}{
			// With this status a client would send the secret again.
			"a redirect": {"refused", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, another.URL, http.StatusTemporaryRedirect)
			}},
			"a page":            {"refused", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }},
			"too long":          {"refused", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20+1)) }},
			"broken":            {"unreachable", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
			"too many requests": {"unreachable", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }},
			"cut": {"unreachable", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte("{"))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}},
		} {
			test.set(failure.answer)
			b := newBrowser(t, p)
			b.wantFailure("the "+endpoint+" endpoint, "+what, b.logIn(test.provider), failure.reason)
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
	for _, provider := range []string{"eclipanel", "company"} { // Nothing of it stays.
		e.set(func() { e.answers = nil })
		keys.Store(nil)
		b := newBrowser(t, p)
		if location := b.logIn(provider); b.user() == nil {
			t.Errorf("the login at %s leads to %s", provider, location)
		}
	}
}

func TestIdentityProviders_LoginsOfSuspendedUsersAreInTheAuditTrail(t *testing.T) {
	e, company := newOAuthServer(t), newOIDC(t)
	p := servertest.Start(t, withProviders(t, e.settings(), oidcSettings("company", company)))
	admin := p.Admin()
	suspended, action := true, "session.refuse"
	for provider, email := range map[string]string{"eclipanel": "ada@example.com", "company": "grace@example.com"} {
		e.set(func() { e.person = map[string]any{"sub": "42", "email": email} })
		if provider == "company" { // Who is queued and does not log in would be the next one.
			for range 3 {
				company.QueueUser(person("17", email))
			}
		}
		b := newBrowser(t, p)
		b.logIn(provider)
		user := b.user()
		if user == nil || string(user.Email) != email {
			t.Fatalf("%s: logged in as %+v", provider, user)
		}
		changed, err := admin.UpdateUserWithResponse(t.Context(), user.ID, types.UserPatch{Suspended: &suspended})
		if err != nil || changed.JSON200 == nil {
			t.Fatalf("suspend %s: %v", email, err)
		}
		for range 2 {
			b.wantFailure(provider, b.logIn(provider), "suspended")
		}
		trail, err := admin.ListAuditWithResponse(t.Context(), &types.ListAuditParams{UserID: &user.ID, Action: &action})
		if err != nil || trail.JSON200 == nil {
			t.Fatalf("audit trail: %v", err)
		}
		entries := *trail.JSON200
		if len(entries) != 1 || entries[0].Count != 2 || entries[0].Actor.Kind != "anonymous" ||
			entries[0].Target.ID.MustGet() != strconv.FormatInt(user.ID, 10) || entries[0].Actor.Address.MustGet() != "127.0.0.1" {
			t.Errorf("%s: the trail has %+v", provider, entries)
		}
	}
}
