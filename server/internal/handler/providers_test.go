package handler_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// TestProviders_ReturnToIsAPageOfThePanel tries what leads elsewhere, or round in circles.
func TestProviders_ReturnToIsAPageOfThePanel(t *testing.T) {
	p := newPanel(t)
	begin := func(returnTo string) answer {
		return p.anonymous().send(t, "GET", "/api/auth/providers/company/login?returnTo="+url.QueryEscape(returnTo), nil)
	}
	for _, returnTo := range []string{
		"https://evil.example.com/", "//evil.example.com", `/\evil.example.com`, `\\evil.example.com`, "javascript:alert(1)",
		"evil.example.com", "/\t/evil.example.com", "/a\r\nSet-Cookie: session=x", "/device#x", "/%00\x00", "/päge",
		"/api/auth/providers/company/login", "/" + strings.Repeat("a", 2000),
	} {
		wantError(t, begin(returnTo), http.StatusBadRequest, types.CodeInvalidRequest)
	}
	for _, returnTo := range []string{
		"/", "/device", "/device?code=CDFG-2345", "/tunnel/verify?user_code=CDFG-2345",
		"/devices/5f1d?tab=a%20b&x=//y", "/allocations?search=caf%C3%A9+x&sort=-name", "/apiary",
	} {
		a := begin(returnTo)
		if location := a.header.Get("Location"); a.status != http.StatusFound || !strings.HasPrefix(location, "https://login.example.com/authorize?") {
			t.Errorf("%q: answered %d to %q: %s", returnTo, a.status, location, a.body)
		}
	}
}

func TestProviders_BeginAsksForCodeWithPKCEAndKeepsTheLoginInACookieOfThisHost(t *testing.T) {
	p := newPanel(t)
	a := p.anonymous().send(t, "GET", "/api/auth/providers/company/login?returnTo=/device", nil)
	location, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	query := location.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "eclitunnel", "code_challenge_method": "S256", "scope": "email profile",
		"redirect_uri": "https://panel.example.com/api/auth/providers/company/callback",
	} {
		if got := query.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(query.Get("state")) < 26 || len(query.Get("code_challenge")) != 43 {
		t.Errorf("state or challenge are too short: %s", location)
	}
	cookies, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(cookies.Name, "__Host-login_") || !cookies.Secure || !cookies.HttpOnly ||
		cookies.SameSite != http.SameSiteLaxMode || cookies.Path != "/" || cookies.Domain != "" || cookies.MaxAge != 600 {
		t.Errorf("the cookie is %s", cookies)
	}
	if strings.Contains(cookies.Value, query.Get("state")) {
		t.Error("the cookie is not encrypted")
	}
}

func TestProviders_ABrowserKeepsFewLogins(t *testing.T) {
	p := newPanel(t)
	var sent []string
	for range 6 {
		a := p.anonymous().send(t, "GET", "/api/auth/providers/company/login", nil, "Cookie", strings.Join(sent, "; "))
		for _, line := range a.header.Values("Set-Cookie") {
			cookie, err := http.ParseSetCookie(line)
			if err != nil {
				t.Fatal(err)
			}
			if cookie.MaxAge < 0 {
				if !strings.HasPrefix(sent[0], cookie.Name+"=") {
					t.Errorf("%s is dropped, and %s is older", cookie.Name, sent[0])
				}
				sent = sent[1:]
			} else {
				sent = append(sent, cookie.Name+"="+cookie.Value)
			}
		}
	}
	if len(sent) != 4 {
		t.Errorf("the browser has %d logins", len(sent))
	}
}

func TestProviders_FailuresArePagesAndOnlyTheAnswersOfProvidersMayHaveMore(t *testing.T) {
	p := newPanel(t)
	for path, reason := range map[string]string{
		"/api/auth/providers/nowhere/login":                                 "unknown-provider",
		"/api/auth/providers/nowhere/callback?state=a&code=b":               "unknown-provider",
		"/api/auth/providers/company/callback":                              "stale",
		"/api/auth/providers/company/callback?state=a&code=b":               "stale",
		"/api/auth/providers/company/callback?state=a&code=b&hd=x&hd=y":     "stale",
		"/api/auth/providers/company/callback?error=<script>&session_state": "stale",
	} {
		a := p.anonymous().send(t, "GET", path, nil)
		want := "/login-failed?reason=" + reason + "&request=" + a.header.Get("X-Request-Id")
		if got := a.header.Get("Location"); a.status != http.StatusFound || got != want || len(a.body) > 0 {
			t.Errorf("%s: answered %d to %q, want %q", path, a.status, got, want)
		}
	}
	wantError(t, p.anonymous().send(t, "GET", "/api/auth/providers/company/callback?state=a&state=b", nil), 400, types.CodeInvalidRequest)
	wantError(t, p.anonymous().send(t, "GET", "/api/auth/providers/company/login?code=b", nil), 400, types.CodeInvalidRequest)
}

func TestProviders_AreListed(t *testing.T) {
	p := newPanel(t)
	list := decode[types.LoginProviders](t, p.anonymous().send(t, "GET", "/api/auth/providers", nil), 200)
	want := types.LoginProvider{ID: "company", Name: "Company account", LoginURL: "/api/auth/providers/company/login"}
	if !list.LocalAccounts || !list.EclipanelURL.IsNull() || len(list.Providers) != 1 || list.Providers[0] != want {
		t.Errorf("listed %+v", list)
	}
}

// begun begins a login, and returns its state and its cookie.
func (p *panel) begun(t *testing.T) (state, cookie string) {
	t.Helper()
	a := p.anonymous().send(t, "GET", "/api/auth/providers/company/login", nil)
	location, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
	return location.Query().Get("state"), cookie
}

// answer sends a provider's answer to a login, and returns where that leads and whether the
// login is cleared.
func (p *panel) answer(t *testing.T, content, state, cookie string) (reason string, cleared bool) {
	t.Helper()
	a := p.anonymous().send(t, "GET", "/api/auth/providers/company/callback?"+content+"&state="+state, nil, "Cookie", cookie)
	location, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return location.Query().Get("reason"), strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0")
}

func TestProviders_ALoginEndsAfterTenMinutes(t *testing.T) {
	p := newPanel(t)
	cleared := func(wait time.Duration) bool { // Only a login that is found is cleared.
		state, cookie := p.begun(t)
		p.advance(wait)
		a := p.anonymous().send(t, "GET", "/api/auth/providers/company/callback?code=x&state="+state, nil, "Cookie", cookie)
		return strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0")
	}
	if !cleared(10*time.Minute-time.Second) || cleared(10*time.Minute) {
		t.Error("a login does not last 10 minutes")
	}
}

func TestProviders_APlantedCookieDoesNotHideTheLogin(t *testing.T) {
	p := newPanel(t)
	state, cookie := p.begun(t)
	name, value, _ := strings.Cut(cookie, "=")
	_, other := p.begun(t)
	_, foreign, _ := strings.Cut(other, "=")
	a := p.anonymous().send(t, "GET", "/api/auth/providers/company/callback?code=x&state="+state, nil,
		"Cookie", strings.Join([]string{name + "=x", name + "=" + foreign, name + "=" + value}, "; "))
	if !strings.Contains(a.header.Get("Set-Cookie"), name+"=;") {
		t.Errorf("answered %v", a.header)
	}
}

// TestProviders_FailuresOfAnAddressAreLimited has logins fail in different ways. What is over
// the limit leaves no row, and the login as it was.
func TestProviders_FailuresOfAnAddressAreLimited(t *testing.T) {
	p := newPanel(t)
	rows := func() (n int) {
		query := `SELECT count(*) FROM rate_limits WHERE key LIKE 'provider:%' AND key NOT LIKE 'provider:a%'`
		if err := dbtest.SQL(t, p.db).QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for content, test := range map[string]struct {
		reason string
		rows   int
	}{
		"code=x":                        {"stale", 30}, // The provider takes none.
		"error=access_denied":           {"denied", 0},
		"error=temporarily_unavailable": {"unreachable", 0},
		"error=x&code=x":                {"refused", 0},
	} {
		before := rows()
		for i := range 30 {
			state, cookie := p.begun(t)
			if reason, cleared := p.answer(t, content, state, cookie); reason != test.reason || !cleared {
				t.Fatalf("%s: answer %d leads to %s", content, i+1, reason)
			}
		}
		state, cookie := p.begun(t)
		for range 2 {
			if reason, cleared := p.answer(t, content, state, cookie); reason != "rate-limited" || cleared {
				t.Errorf("%s: over the limit it leads to %s, cleared: %t", content, reason, cleared)
			}
		}
		if n := rows() - before; n != test.rows {
			t.Errorf("%s: has left %d rows", content, n)
		}
		p.advance(time.Minute)
		if reason, _ := p.answer(t, content, state, cookie); reason != test.reason {
			t.Errorf("%s: a minute later it leads to %s", content, reason)
		}
		p.advance(time.Minute)
	}
	for range 40 { // Nobody's login.
		p.answer(t, "error=access_denied", "x", "")
	}
	state, cookie := p.begun(t)
	if reason, _ := p.answer(t, "error=access_denied", state, cookie); reason != "denied" {
		t.Errorf("after answers to no login it leads to %s", reason)
	}
}
