package handler_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// wantLimits checks the headers that tell of limits.
func wantLimits(t *testing.T, a answer, policy, limits string) {
	t.Helper()
	if a.header.Get("RateLimit-Policy") != policy || a.header.Get("RateLimit") != limits {
		t.Errorf("%s %s answered %d with %q and %q, want %q and %q", a.method, a.path, a.status,
			a.header.Get("RateLimit-Policy"), a.header.Get("RateLimit"), policy, limits)
	}
}

// TestRateLimit_TellsWhatIsLeft: of those who guess codes, each knows where it stands, and nobody else.
func TestRateLimit_TellsWhatIsLeft(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "admin@example.com", "admin"), p.user(t, "ada@example.com", "user")
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"enrollment":{"ownersApprove":true}}`), 200)
	const policy = `"approval";q=10;w=60, "approval-account";q=10;w=60`
	guess := func() answer { return ada.send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"BCDF-2345"}`) }
	p.advance(time.Minute)
	for left := 9; left >= 0; left-- {
		wantLimits(t, guess(), policy, fmt.Sprintf(`"approval";r=%[1]d;t=60, "approval-account";r=%[1]d;t=60`, left))
	}
	p.advance(20 * time.Second)
	for range 2 {
		refused := guess()
		wantError(t, refused, 429, types.CodeRateLimited)
		wantLimits(t, refused, `"approval";q=10;w=60`, `"approval";r=0;t=40`)
		if refused.header.Get("Retry-After") != "40" {
			t.Errorf("Retry-After is %q", refused.header.Get("Retry-After"))
		}
	}
	wantLimits(t, ada.send(t, "GET", "/api/tunnel/devices", nil), "", "")
	wantLimits(t, p.anonymous().send(t, "GET", "/api/version", nil), "", "")
}

// TestRateLimit_SuccessGivesTheAttemptBack: what does not count is told as not counted.
func TestRateLimit_SuccessGivesTheAttemptBack(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "admin@example.com", "admin")
	p.advance(time.Hour)
	started := decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`), 200)
	wrong := admin.send(t, "POST", "/api/tunnel/device/approve", `{"userCode":"BCDF-2345"}`)
	wantLimits(t, wrong, `"approval";q=10;w=60, "approval-account";q=10;w=60`, `"approval";r=9;t=60, "approval-account";r=9;t=60`)
	right := admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode})
	wantLimits(t, right, `"approval";q=10;w=60, "approval-account";q=10;w=60`, `"approval";r=10;t=60, "approval-account";r=10;t=60`)
}

// TestRateLimit_LoginTellsNothingOfTheAccount: the answers for an account under attack, for one that is not, and for
// none are alike.
func TestRateLimit_LoginTellsNothingOfTheAccount(t *testing.T) {
	p := newPanel(t)
	p.user(t, "ada@example.com", "user")
	p.advance(time.Hour)
	login := func(email, address string) answer {
		return p.anonymous().send(t, "POST", "/api/auth/login", map[string]any{"email": email, "password": "wrong horse battery"},
			"X-Forwarded-For", address)
	}
	for range 3 {
		login("ada@example.com", "203.0.113.1")
	}
	attacked, none := login("ada@example.com", "203.0.113.2"), login("nobody@example.com", "203.0.113.3")
	if attacked.status != http.StatusUnauthorized || attacked.header.Get("RateLimit") == "" {
		t.Fatalf("answered %d with %v", attacked.status, attacked.header)
	}
	wantLimits(t, none, attacked.header.Get("RateLimit-Policy"), attacked.header.Get("RateLimit"))
}
