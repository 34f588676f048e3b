package handler_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestLogin_SetsTheCookieAndReturnsTheSameToken(t *testing.T) {
	p := newPanel(t)
	p.user(t, "ada@example.com", "user")
	a := p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": "ada@example.com", "password": password})
	login := decode[types.Login](t, a, 200)
	cookie, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	if cookie.Name != "session" || cookie.Value != login.Token || !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie is %v", cookie)
	}
	if login.User.Email != "ada@example.com" || login.User.Role != types.RoleUser {
		t.Errorf("user is %+v", login.User)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Error("a cache may keep the token")
	}
	for _, cookie := range []bool{true, false} {
		session := decode[types.Session](t, caller{panel: p, token: login.Token, cookie: cookie}.send(t, "GET", "/api/auth/session", nil), 200)
		if session.User != login.User || !session.ExpiresAt.After(p.Now()) {
			t.Errorf("session is %+v", session)
		}
	}
}

func TestLogin_IgnoresAStaleCredential(t *testing.T) {
	p := newPanel(t)
	p.user(t, "ada@example.com", "user")
	stale := caller{panel: p, token: "stale", cookie: true}
	decode[types.Login](t, stale.send(t, "POST", "/api/auth/login", map[string]string{"email": "ada@example.com", "password": password}), 200)
}

func TestLogin_RejectsAndLimitsFailures(t *testing.T) {
	p := newPanel(t)
	p.user(t, "ada@example.com", "user")
	login := func(password string) answer {
		return p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": "ada@example.com", "password": password})
	}
	for range 10 {
		wantError(t, login("wrong"), 401, types.CodeUnauthorized)
	}
	a := login(password)
	wantError(t, a, 429, types.CodeRateLimited)
	if a.header.Get("Retry-After") != "60" {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	wantField(t, p.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": "ada", "password": "x"}), "email")
}

func TestLogout_ClearsTheCookieAndEndsTheSession(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	a := ada.send(t, "POST", "/api/auth/logout", nil)
	decode[struct{}](t, a, 204)
	cookies := a.header.Values("Set-Cookie")
	if len(cookies) != 2 {
		t.Fatalf("cookies are %q", cookies)
	}
	for i, name := range []string{"session", "__Host-session"} {
		if !strings.HasPrefix(cookies[i], name+"=;") || !strings.Contains(cookies[i], "Max-Age=0") || !strings.Contains(cookies[i], "Secure") {
			t.Errorf("cookie is %q", cookies[i])
		}
	}
	wantError(t, ada.send(t, "GET", "/api/auth/session", nil), 401, types.CodeUnauthorized)
	wantError(t, ada.send(t, "POST", "/api/auth/logout", nil), 401, types.CodeUnauthorized)
}
