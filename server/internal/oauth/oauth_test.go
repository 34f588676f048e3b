package oauth_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

// TestProviders_AFailureOfTheLoginItselfCounts has the panel refuse whom the provider has
// accepted, as it refuses a suspended user.
func TestProviders_AFailureOfTheLoginItselfCounts(t *testing.T) {
	d := discover(t, "oauth2", time.Minute)
	d.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/token":
			_, _ = w.Write([]byte(`{"access_token": "x", "token_type": "Bearer"}`))
		case "/userinfo":
			_, _ = w.Write([]byte(`{"sub": "17"}`))
		default:
			d.metadata(d.issuer)(w, r)
		}
	})
	refused := errors.New("suspended")
	for n, want := range []error{nil, refused, nil, refused} {
		location, sent, err := d.Begin(t.Context(), "company", "/device", nil)
		if err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		answer := url.Values{"code": {"x"}, "state": {at.Query().Get("state")}}
		returnTo, _, err := d.Finish(t.Context(), "company", answer, sent, func(_ context.Context, identity db.Identity) error {
			if identity.Subject != "17" {
				t.Errorf("%+v has logged in", identity)
			}
			return want
		})
		if !errors.Is(err, want) || returnTo != "/device" {
			t.Errorf("login %d leads to %s: %v", n, returnTo, err)
		}
		for key, count := range d.counts {
			switch {
			case strings.HasPrefix(key, "provider:address:") && count != (n+1)/2, strings.HasPrefix(key, "provider:answers:") && count != n+1:
				t.Errorf("after login %d the count of %s is %d", n, key, count)
			}
		}
		if len(d.counts) != 3+n { // Both limits, and the states.
			t.Errorf("after login %d there are %d counts", n, len(d.counts))
		}
	}
}
