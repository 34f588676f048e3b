package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

func TestLogin_GivesASessionForCookieAndBearer(t *testing.T) {
	p := newPanel(t)
	user := p.user(t)
	login := p.login(t)
	if login.User.ID != user.ID {
		t.Errorf("user is %d, want %d", login.User.ID, user.ID)
	}
	for name, r := range map[string]*http.Request{"bearer": bearer(login.Token), "cookie": cookie(login.Cookie.Value)} {
		principal, err := p.auth.Authenticate(r)
		if err != nil || principal.Kind() != auth.KindUser || principal.User.ID != user.ID {
			t.Errorf("%s: %+v, %v", name, principal, err)
			continue
		}
		if want := p.clock.Now().Add(30 * 24 * time.Hour); !principal.Session.ExpiresAt.Equal(want) {
			t.Errorf("%s: expires %v, want %v", name, principal.Session.ExpiresAt, want)
		}
	}
}

func TestLogin_IgnoresTheCaseOfTheEmail(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	if _, err := p.auth.Login(t.Context(), "Ada@Example.COM", password); err != nil {
		t.Error(err)
	}
}

func TestLogin_CookiesAreSecureAndPrefixedUnderTLS(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	overTLS := httptest.NewRequest("POST", "https://panel.example.com/api/auth/login", nil) // With r.TLS.
	proxied := func(address, scheme string) *http.Request {
		r := httptest.NewRequest("POST", "http://panel.example.com/api/auth/login", nil)
		r.RemoteAddr = address
		r.Header.Set("X-Forwarded-Proto", scheme)
		return r
	}
	for name, test := range map[string]struct {
		publicURL string
		request   *http.Request
		secure    bool
	}{
		"a public URL of https":           {"https://panel.example.com", proxied("192.0.2.1:1000", ""), true},
		"a public URL of http":            {"http://localhost:8080", proxied("192.0.2.1:1000", ""), false},
		"TLS":                             {"http://localhost:8080", overTLS, true},
		"a trusted proxy with TLS":        {"http://localhost:8080", proxied("10.0.0.1:1000", "https"), true},
		"two trusted proxies with TLS":    {"http://localhost:8080", proxied("10.0.0.1:1000", "HTTPS, http"), true},
		"a trusted proxy without TLS":     {"http://localhost:8080", proxied("10.0.0.1:1000", "http"), false},
		"a caller who says that it's TLS": {"http://localhost:8080", proxied("192.0.2.1:1000", "https"), false},
	} {
		a := p.newAuth(t, test.publicURL, netip.MustParsePrefix("10.0.0.0/8"))
		var login auth.Login
		var err error
		a.WithAddress(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			login, err = a.Login(r.Context(), email, password)
		})).ServeHTTP(httptest.NewRecorder(), test.request)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range login.Cookies() {
			names = append(names, c.Name)
			if c.Path != "/" || c.Domain != "" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure != test.secure || c.MaxAge <= 0 {
				t.Errorf("%s: cookie %v", name, c)
			}
			if strings.HasSuffix(c.Name, "session") && c.Value != login.Token {
				t.Errorf("%s: cookie %v", name, c)
			}
		}
		want := []string{"session", "known_browser"}
		if test.secure {
			want = append(want, "__Host-session", "__Host-known_browser")
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: cookies %q", name, names)
		}
	}
}

func TestLogin_WrongPasswordAndUnknownEmailLookAlike(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	_, wrong := p.auth.Login(t.Context(), email, "wrong")
	_, unknown := p.auth.Login(t.Context(), "nobody@example.com", "wrong")
	if status(wrong) != 401 || status(unknown) != 401 || wrong.Error() != unknown.Error() {
		t.Errorf("wrong password: %v, unknown email: %v", wrong, unknown)
	}
}

func TestLogin_LimitsFailuresPerEmail(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	for range 10 {
		if _, err := p.auth.Login(t.Context(), email, "wrong"); status(err) != 401 {
			t.Fatal(err)
		}
	}
	_, err := p.auth.Login(t.Context(), email, password)
	var limited *problem.Error
	if !errors.As(err, &limited) || limited.Status != 429 || limited.RetryAfter <= 0 {
		t.Fatalf("the eleventh attempt: %v", err)
	}
	p.clock.advance(limited.RetryAfter)
	if _, err := p.auth.Login(t.Context(), email, password); err != nil {
		t.Errorf("after Retry-After: %v", err)
	}
}

func TestLogin_SuccessResetsFailures(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	for range 3 {
		for range 9 {
			if _, err := p.auth.Login(t.Context(), email, "wrong"); status(err) != 401 {
				t.Fatal(err)
			}
		}
		p.login(t)
	}
}

// from returns the context that WithAddress creates for a connection from address.
func from(t *testing.T, a *auth.Auth, address string, headers ...string) context.Context {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = address
	for _, header := range headers {
		r.Header.Add("X-Forwarded-For", header)
	}
	var ctx context.Context
	a.WithAddress(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx = r.Context()
	})).ServeHTTP(httptest.NewRecorder(), r)
	return ctx
}

func TestLogin_SuccessDoesNotResetTheLimitByAddress(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	here := from(t, p.auth, "192.0.2.1:1000")
	for i := range 30 {
		if i == 10 || i == 20 {
			if _, err := p.auth.Login(here, email, password); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.auth.Login(here, string(rune('a'+i))+"@example.com", "wrong"); status(err) != 401 {
			t.Fatal(err)
		}
	}
	if _, err := p.auth.Login(here, email, password); status(err) != 429 {
		t.Errorf("same address: %v", err)
	}
	if _, err := p.auth.Login(from(t, p.auth, "192.0.2.2:1000"), email, password); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func TestLogin_GuessingAddressDoesNotLockOutOthers(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	for range 40 {
		_, _ = p.auth.Login(from(t, p.auth, "192.0.2.1:1000"), email, "wrong")
	}
	if _, err := p.auth.Login(from(t, p.auth, "192.0.2.2:1000"), email, password); err != nil {
		t.Errorf("the owner of the account: %v", err)
	}
}

func TestLogin_FailuresForOneEmailFromAllAddressesSlowDown(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	for i := range 51 {
		here := from(t, p.auth, fmt.Sprintf("192.0.2.%d:1000", i/10))
		if _, err := p.auth.Login(here, email, "wrong"); status(err) != 401 {
			t.Fatal(err)
		}
		if slowed := int(p.auth.Slowed()); slowed != i/50 { //nolint:gosec // few
			t.Fatalf("failure %d: %d were slowed down", i, slowed)
		}
	}
	if _, err := p.auth.Login(from(t, p.auth, "198.51.100.1:1000"), email, password); err != nil || p.auth.Slowed() != 2 {
		t.Errorf("the right password: %v, %d were slowed down", err, p.auth.Slowed())
	}
}

func TestLogin_EndsWithItsContext(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.auth.Login(ctx, email, password); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAddressKey_TrustsOnlyTrustedProxies(t *testing.T) {
	p := newPanel(t)
	a := p.newAuth(t, "http://localhost", netip.MustParsePrefix("10.0.0.0/8"))
	for _, test := range []struct {
		remote, want string
		forwarded    []string
	}{
		{"192.0.2.1:80", "192.0.2.1", nil},
		{"192.0.2.1:80", "192.0.2.1", []string{"198.51.100.7"}},
		{"10.0.0.1:80", "198.51.100.7", []string{"198.51.100.7"}},
		{"10.0.0.1:80", "198.51.100.7", []string{"203.0.113.9, 198.51.100.7"}},
		{"10.0.0.1:80", "198.51.100.7", []string{"203.0.113.9", "198.51.100.7, 10.1.1.1"}},
		{"10.0.0.1:80", "10.0.0.1", nil},
		{"10.0.0.1:80", "10.0.0.1", []string{"unknown"}},
		{"10.0.0.1:80", "198.51.100.7", []string{"203.0.113.9:99, 198.51.100.7:51234"}},
		{"10.0.0.1:80", "2001:db8:1:2::/64", []string{"[2001:db8:1:2:3::4]:51234"}},
		{"[::ffff:10.0.0.1]:80", "198.51.100.7", []string{"::ffff:198.51.100.7"}},
		{"[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64", nil},
		{"pipe", "invalid IP", nil},
	} {
		if got := auth.AddressKey(from(t, a, test.remote, test.forwarded...)); got != test.want {
			t.Errorf("%s via %q is %s, want %s", test.remote, test.forwarded, got, test.want)
		}
	}
}

func TestAddress_SaysOnceThatAProxyIsNotTrusted(t *testing.T) {
	p := newPanel(t)
	for name, c := range map[string]struct {
		remote string
		warns  bool
	}{
		"a proxy of the same machine":      {"127.0.0.1:80", true},
		"a proxy of a private network":     {"192.168.7.1:80", true},
		"one of a private IPv6 network":    {"[fd00::7]:80", true},
		"a proxy that is trusted":          {"10.0.0.1:80", false},
		"a stranger with a forged header":  {"192.0.2.1:80", false},
		"a stranger of a global IPv6 host": {"[2001:db8::1]:80", false},
	} {
		var log testlog.Buffer
		a, err := auth.New(t.Context(), auth.Options{
			Store: p.db, PublicURL: &url.URL{Scheme: "http", Host: "localhost"}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		})
		if err != nil {
			t.Fatal(err)
		}
		from(t, a, c.remote) // Without the header, nothing speaks of a proxy.
		before := log.String()
		from(t, a, c.remote, "198.51.100.7")
		from(t, a, c.remote, "198.51.100.8")
		if got := strings.Count(log.String(), "--trusted-proxies"); before != "" || got == 1 != c.warns || got > 1 {
			t.Errorf("%s: %d warnings, log %s", name, got, log.String())
		}
	}
}

func TestLogout_EndsTheSessionEverywhere(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login, other := p.login(t), p.login(t)
	replica := p.newAuth(t, "https://panel.example.com")
	principal, err := replica.Authenticate(bearer(login.Token))
	if err != nil {
		t.Fatal(err)
	}
	cleared, err := p.auth.Logout(auth.NewContext(t.Context(), principal))
	if err != nil || len(cleared) != 2 || cleared[0].Name != "session" || cleared[1].Name != "__Host-session" {
		t.Errorf("cookies %v, %v", cleared, err)
	}
	for _, cookie := range cleared {
		if cookie.MaxAge >= 0 {
			t.Errorf("cookie %v", cookie)
		}
	}
	if _, err := replica.Authenticate(bearer(login.Token)); status(err) != 401 {
		t.Errorf("the session is still valid: %v", err)
	}
	if _, err := replica.Authenticate(bearer(other.Token)); err != nil {
		t.Errorf("the user's other session: %v", err)
	}
}
