package auth_test

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// clock is a clock that only advances when told to.
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

// panel is the environment of a test: a database, an Auth and its clock.
type panel struct {
	db    *db.DB
	auth  *auth.Auth
	clock *clock

	deleted string // A token of a deleted device.
	private ed25519.PrivateKey
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

// device creates an approved device and its token.
func (p *panel) device(t *testing.T) (db.Device, string) {
	t.Helper()
	now := p.clock.Now()
	device, err := p.db.CreateDevice(t.Context(), db.NewDevice{
		Name: "home", Kind: db.KindClient, UserCode: "CDFG-2345", CodeHash: []byte("hash"), CreatedAt: now, ExpiresAt: now.Add(time.Minute),
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

// status returns the HTTP status of an error, 0 for nil.
func status(err error) int {
	if err == nil {
		return 0
	}
	return problem.From(err).Status
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
	device, token := p.device(t)
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

// An API key comes first in its own header, and as a bearer token before the cookie.
func TestAuthenticate_APIKeyWinsOverOtherCredentials(t *testing.T) {
	p := newPanel(t)
	user := p.user(t)
	session := p.login(t).Token
	key, _, err := p.auth.NewAPIKey(t.Context(), db.Scope{All: true}, db.APIKey{
		APIKeyOwner: db.APIKeyOwner{UserID: &user.ID}, Name: "script", Scopes: auth.ScopeRead.Names(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		headers []string
		byKey   bool
		status  int
	}{
		"in its own header":          {[]string{"X-API-Key", key}, true, 0},
		"as a token":                 {[]string{"Authorization", "Bearer " + key}, true, 0},
		"beside an ended session":    {[]string{"X-API-Key", key, "Cookie", "session=abc"}, true, 0},
		"a token, and ended session": {[]string{"Authorization", "bearer " + key, "Cookie", "session=abc"}, true, 0},
		"beside a good session":      {[]string{"X-API-Key", key, "Cookie", "session=" + session}, true, 0},
		"beside a session's token":   {[]string{"X-API-Key", key, "Authorization", "Bearer " + session}, true, 0},
		"beside a proxy's password":  {[]string{"X-API-Key", key, "Authorization", "Basic YTpi"}, true, 0},
		"from another origin":        {[]string{"X-API-Key", key, "Sec-Fetch-Site", "cross-site", "Cookie", "session=" + session}, true, 0},
		"a bad one":                  {[]string{"X-API-Key", "etk_abc", "Cookie", "session=" + session}, false, 401},
		"a bad one beside a token":   {[]string{"X-API-Key", key + "x", "Authorization", "Bearer " + session}, false, 401},
		"a bad one as a token":       {[]string{"Authorization", "Bearer " + key[:20], "Cookie", "session=" + session}, false, 401},
		"a typing error":             {[]string{"X-API-Key", strings.Replace(key, key[10:11], string(key[10]^1), 1)}, false, 401},
		"a session's token as a key": {[]string{"X-API-Key", session}, false, 401},
		"a key as a cookie":          {[]string{"Cookie", "session=" + key}, false, 401},
		"an empty one":               {[]string{"X-API-Key", "", "Authorization", "Bearer " + session}, false, 0},
	} {
		r := httptest.NewRequest("POST", "https://panel.example.com/", nil)
		for i := 0; i < len(test.headers); i += 2 {
			r.Header.Set(test.headers[i], test.headers[i+1])
		}
		principal, err := p.auth.Authenticate(r)
		if status(err) != test.status || (principal.Key != nil) != test.byKey || err == nil && principal.User.ID != user.ID {
			t.Errorf("%s: %+v, %v", name, principal, err)
		}
		if err != nil && strings.Contains(err.Error(), "etk_") {
			t.Errorf("%s: the error has the key: %v", name, err)
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

func TestAuthenticate_FirstValidOfSeveralCookiesCounts(t *testing.T) {
	p := newPanel(t)
	user := p.user(t)
	good, other, ended := p.login(t), p.login(t), p.login(t)
	principal, err := p.auth.Authenticate(bearer(ended.Token))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Logout(auth.NewContext(t.Context(), principal)); err != nil {
		t.Fatal(err)
	}
	_, device := p.device(t)
	// A session of another program, with a signature of its own.
	const foreign = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.dGhpcyBpcyBub3Qgb3Vycw"
	for name, test := range map[string]struct {
		cookies []string // Cookie headers.
		session string   // The token of the session that counts; empty for none.
	}{
		"another program's first":  {[]string{"session=abc; session=" + good.Token}, good.Token},
		"another program's last":   {[]string{"session=" + good.Token + "; session=abc"}, good.Token},
		"in headers of their own":  {[]string{"session=abc", "theme=dark; session=" + good.Token}, good.Token},
		"an empty one first":       {[]string{"session=; session=" + good.Token}, good.Token},
		"another program's JWT":    {[]string{"session=" + foreign + "; session=" + good.Token}, good.Token},
		"an ended one first":       {[]string{"session=" + ended.Token + "; session=" + good.Token}, good.Token},
		"a device's token first":   {[]string{"session=" + device + "; session=" + good.Token}, good.Token},
		"a malformed one first":    {[]string{"session=a\"b; session=" + good.Token}, good.Token},
		"the same many times":      {[]string{strings.Repeat("session=abc; ", 100) + "session=" + good.Token}, good.Token},
		"two good ones":            {[]string{"session=" + other.Token + "; session=" + good.Token}, other.Token},
		"the prefix before all":    {[]string{"session=" + other.Token + "; __Host-session=" + good.Token}, good.Token},
		"an ended one of a prefix": {[]string{"session=" + good.Token + "; __Host-session=" + ended.Token}, good.Token},
		"a prefix after many":      {[]string{many(20) + "__Host-session=" + good.Token}, good.Token},
		"too many":                 {[]string{many(16) + "session=" + good.Token}, ""},
		"none that is good":        {[]string{"session=abc; session=" + ended.Token + "; session=" + device}, ""},
	} {
		r := httptest.NewRequest("GET", "https://panel.example.com/", nil)
		r.Header["Cookie"] = test.cookies
		principal, err := p.auth.Authenticate(r)
		if test.session == "" {
			if status(err) != 401 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want, wantErr := p.auth.Authenticate(bearer(test.session))
		if err != nil || wantErr != nil || principal.User.ID != user.ID || principal.Session.ID != want.Session.ID {
			t.Errorf("%s: %+v, %v", name, principal, err)
		}
	}
	r := cookie("abc")
	r.Header.Set("Authorization", "Bearer "+good.Token)
	if _, err := p.auth.Authenticate(r); err != nil {
		t.Errorf("a token beside a bad cookie: %v", err)
	}
}

// many returns the beginning of a Cookie header with n different values.
func many(n int) string {
	var header strings.Builder
	for i := range n {
		fmt.Fprintf(&header, "session=planted%d; ", i)
	}
	return header.String()
}

func TestAuthenticate_RejectsCookieFromAnotherOrigin(t *testing.T) {
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

func TestAuthenticate_DeviceTokenIsValidForItsVersionOnly(t *testing.T) {
	p := newPanel(t)
	device, old := p.device(t)
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
	id, organisation := uuid.New(), int64(7)
	for name, test := range map[string]struct {
		principal auth.Principal
		want      db.Scope
	}{
		"anonymous": {auth.Principal{}, db.Scope{}},
		"user":      {auth.Principal{User: &db.User{ID: 3, Role: "user"}}, db.Scope{UserID: 3}},
		"admin":     {auth.Principal{User: &db.User{ID: 3, Role: "admin"}}, db.Scope{All: true, UserID: 3}},
		"device":    {auth.Principal{Device: &db.Device{ID: id}}, db.Scope{DeviceID: id}},
		"admin's key without the scope": {
			auth.Principal{User: &db.User{ID: 3, Role: "admin"}, Key: &db.APIKey{Scopes: []string{"read"}}}, db.Scope{UserID: 3},
		},
		"admin's key": {
			auth.Principal{User: &db.User{ID: 3, Role: "admin"}, Key: &db.APIKey{Scopes: []string{"read", "admin"}}}, db.Scope{All: true, UserID: 3},
		},
		"organisation's key": {
			auth.Principal{Key: &db.APIKey{APIKeyOwner: db.APIKeyOwner{OrganisationID: &organisation}, Scopes: []string{"admin"}}},
			db.Scope{OrganisationID: organisation},
		},
	} {
		if got := test.principal.Scope(); got != test.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestHashPassword_ChecksTheLength(t *testing.T) {
	if _, err := auth.HashPassword(""); err == nil {
		t.Error("accepted an empty password")
	}
	if _, err := auth.HashPassword(string(make([]byte, 1025))); err == nil {
		t.Error("accepted 1025 characters")
	}
}
