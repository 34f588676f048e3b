package auth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now().UTC().Truncate(time.Second)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// panel is what a test of auth needs around it.
type panel struct {
	db    *db.DB
	auth  *auth.Auth
	clock *clock
}

func newPanel(t *testing.T) *panel {
	t.Helper()
	p := &panel{db: dbtest.New(t), clock: newClock()}
	p.auth = p.newAuth(t, "https://panel.example.com")
	return p
}

func (p *panel) newAuth(t *testing.T, publicURL string, proxies ...netip.Prefix) *auth.Auth {
	t.Helper()
	parsed, err := url.Parse(publicURL)
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(t.Context(), auth.Options{Store: p.db, PublicURL: parsed, TrustedProxies: proxies, Now: p.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const (
	email    = "ada@example.com"
	password = "correct horse battery staple"
)

func (p *panel) user(t *testing.T) db.User {
	t.Helper()
	hash, err := auth.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	user, err := p.db.CreateUser(t.Context(), email, hash, "user")
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func (p *panel) login(t *testing.T) auth.Login {
	t.Helper()
	login, err := p.auth.Login(t.Context(), email, password)
	if err != nil {
		t.Fatal(err)
	}
	return login
}

// device makes an approved device and its token.
func (p *panel) device(t *testing.T, userCode string) (db.Device, string) {
	t.Helper()
	now := p.clock.Now()
	device, err := p.db.CreateDevice(t.Context(), db.NewDevice{
		Name: "home", Kind: db.KindClient, UserCode: userCode, CodeHash: []byte(userCode), CreatedAt: now, ExpiresAt: now.Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	if device, err = p.db.ApproveDevice(t.Context(), device.ID, db.Approval{At: now}); err != nil {
		t.Fatal(err)
	}
	token, err := p.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	return device, token
}

func bearer(token string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func cookie(token string) *http.Request {
	r := httptest.NewRequest("POST", "https://panel.example.com/", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: token})
	return r
}

// status is the status an error is answered with; 0 for none.
func status(err error) int {
	if err == nil {
		return 0
	}
	return problem.From(err).Status
}

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

func TestLogin_CookieIsSecureUnderTLS(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	for publicURL, secure := range map[string]bool{"https://panel.example.com": true, "http://localhost:8080": false} {
		p.auth = p.newAuth(t, publicURL)
		c := p.login(t).Cookie
		if c.Name != "session" || c.Path != "/" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure != secure || c.MaxAge <= 0 {
			t.Errorf("%s: cookie %v", publicURL, c)
		}
	}
}

func TestLogin_AnswersAWrongPasswordAndAnUnknownEmailAlike(t *testing.T) {
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

func TestLogin_ForgivesFailuresOnSuccess(t *testing.T) {
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

// from returns a context as WithAddress makes it for a connection from address.
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

func TestLogin_LimitsFailuresPerAddress(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	here := from(t, p.auth, "192.0.2.1:1000")
	for i := range 10 {
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

func TestLogin_GivesUpWithItsContext(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.auth.Login(ctx, email, password); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAddressKey_BelievesTrustedProxiesOnly(t *testing.T) {
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
		{"[::ffff:10.0.0.1]:80", "198.51.100.7", []string{"::ffff:198.51.100.7"}},
		{"[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64", nil},
		{"pipe", "invalid IP", nil},
	} {
		if got := auth.AddressKey(from(t, a, test.remote, test.forwarded...)); got != test.want {
			t.Errorf("%s via %q is %s, want %s", test.remote, test.forwarded, got, test.want)
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
	if err != nil || cleared.MaxAge >= 0 || cleared.Name != "session" {
		t.Errorf("cookie %v, %v", cleared, err)
	}
	if _, err := replica.Authenticate(bearer(login.Token)); status(err) != 401 {
		t.Errorf("the session lives on: %v", err)
	}
	if _, err := replica.Authenticate(bearer(other.Token)); err != nil {
		t.Errorf("the user's other session: %v", err)
	}
}

func TestAuthenticate_SessionEndsAfterThirtyDays(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	p.clock.advance(30*24*time.Hour - time.Minute)
	if _, err := p.auth.Authenticate(bearer(login.Token)); err != nil {
		t.Errorf("a minute before: %v", err)
	}
	p.clock.advance(time.Minute)
	if _, err := p.auth.Authenticate(bearer(login.Token)); status(err) != 401 {
		t.Errorf("at the end: %v", err)
	}
}

func TestAuthenticate_BearerWinsOverCookie(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	device, token := p.device(t, "CDFG-2345")
	r := cookie(login.Token)
	r.Header.Set("Authorization", "bearer "+token)
	if principal, err := p.auth.Authenticate(r); err != nil || principal.Device == nil || principal.Device.ID != device.ID {
		t.Errorf("got %+v, %v", principal, err)
	}
	for _, header := range []string{"Bearer nonsense", "Bearer", "Basic YTpi", login.Token} {
		r.Header.Set("Authorization", header)
		if _, err := p.auth.Authenticate(r); status(err) != 401 {
			t.Errorf("%q fell back to the cookie: %v", header, err)
		}
	}
}

func TestAuthenticate_NoCredentialIsAnonymous(t *testing.T) {
	p := newPanel(t)
	for name, r := range map[string]*http.Request{"nothing": httptest.NewRequest("GET", "/", nil), "empty cookie": cookie("")} {
		if principal, err := p.auth.Authenticate(r); err != nil || principal.Kind() != auth.KindAnonymous {
			t.Errorf("%s: %+v, %v", name, principal, err)
		}
	}
}

func TestAuthenticate_TakesNoCookieFromAnotherOrigin(t *testing.T) {
	p := newPanel(t)
	p.user(t)
	login := p.login(t)
	for site, want := range map[string]int{"same-origin": 0, "none": 0, "same-site": 401, "cross-site": 401} {
		r := cookie(login.Token)
		r.Header.Set("Sec-Fetch-Site", site)
		if _, err := p.auth.Authenticate(r); status(err) != want {
			t.Errorf("%s: %v", site, err)
		}
	}
}

func TestAuthenticate_DeviceTokenDiesWithItsVersion(t *testing.T) {
	p := newPanel(t)
	device, old := p.device(t, "CDFG-2345")
	device, err := p.db.RegenerateToken(t.Context(), db.Scope{All: true}, device.ID)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := p.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Authenticate(bearer(old)); status(err) != 401 {
		t.Errorf("the old token: %v", err)
	}
	if _, err := p.auth.Authenticate(bearer(fresh)); err != nil {
		t.Errorf("the new token: %v", err)
	}
	p.clock.advance(10 * 365 * 24 * time.Hour)
	if _, err := p.auth.Authenticate(bearer(fresh)); err != nil {
		t.Errorf("the new token after ten years: %v", err)
	}
	if err := p.db.DeleteDevice(t.Context(), db.Scope{All: true}, device.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Authenticate(bearer(fresh)); status(err) != 401 {
		t.Errorf("the token of a deleted device: %v", err)
	}
}

func TestScope_FollowsTheCaller(t *testing.T) {
	id := uuid.New()
	for name, test := range map[string]struct {
		principal auth.Principal
		want      db.Scope
	}{
		"nobody": {auth.Principal{}, db.Scope{}},
		"user":   {auth.Principal{User: &db.User{ID: 3, Role: "user"}}, db.Scope{UserID: 3}},
		"admin":  {auth.Principal{User: &db.User{ID: 3, Role: "admin"}}, db.Scope{All: true}},
		"device": {auth.Principal{Device: &db.Device{ID: id}}, db.Scope{DeviceID: id}},
	} {
		if got := test.principal.Scope(); got != test.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestHashPassword_HoldsTheLength(t *testing.T) {
	if _, err := auth.HashPassword(""); err == nil {
		t.Error("took an empty password")
	}
	if _, err := auth.HashPassword(string(make([]byte, 1025))); err == nil {
		t.Error("took 1025 characters")
	}
}
