package handler_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

const (
	loginPath        = "/api/auth/device"
	loginPollPath    = loginPath + "/token"
	loginApprovePath = loginPath + "/approve"
	loginDenyPath    = loginPath + "/deny"
	loginRevokePath  = loginPath + "/revoke"
)

// newLogin makes a pending login that asks for every scope, past the limits of those who start one.
func (p *panel) newLogin(t *testing.T) (userCode, deviceCode string) {
	t.Helper()
	id := uuid.New() // Its first bytes are random.
	code := []byte("2345-CDFG")
	for i := range 4 {
		code[i] = "23456789"[id[i]/16%8]
		code[5+i] = "CDFGHJKMNPQRTVWX"[id[i]%16]
	}
	hash := sha256.Sum256([]byte(id.String()))
	if _, err := p.db.CreateDeviceLogin(t.Context(), db.NewDeviceLogin{
		UserCode: string(code), CodeHash: hash[:], Client: "eclitunnel", Host: "gaming-rig", Platform: "linux/amd64",
		Scopes: []string{"read", "devices", "allocations", "enrollment", "admin"}, CreatedAt: p.Now(), ExpiresAt: p.Now().Add(enroll.Lifetime),
	}, db.PendingLimits{}); err != nil {
		t.Fatal(err)
	}
	return string(code), id.String()
}

func pollLogin(t *testing.T, p *panel, deviceCode string) answer {
	t.Helper()
	p.advance(enroll.Interval)
	return p.anonymous().send(t, "POST", loginPollPath, map[string]string{"deviceCode": deviceCode})
}

// loginAnswers adds the errors of logins.
func loginAnswers(t *testing.T, p *panel, c caller, answers map[string]answer) {
	t.Helper()
	denied, deniedCode := p.newLogin(t)
	decode[types.Success](t, c.send(t, "POST", loginDenyPath, code(denied)), 200)
	answers["LoginDenied"] = pollLogin(t, p, deniedCode)
	answers["LoginCodeNotFound"] = c.send(t, "POST", loginApprovePath, code("2345-CDFG"))
	answers["LoginNotFound"] = pollLogin(t, p, "unknown")
	approved, approvedCode := p.newLogin(t)
	decode[types.APIKey](t, c.send(t, "POST", loginApprovePath, code(approved)), 200)
	answers["LoginDecided"] = c.send(t, "POST", loginApprovePath, code(approved))
	decode[types.DeviceLoginStatus](t, pollLogin(t, p, approvedCode), 200)
	answers["LoginExpired"] = pollLogin(t, p, approvedCode)
}

func TestDeviceLogin_GivesAKeyOfThePersonWhoApproves(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	started := decode[types.DeviceLogin](t, p.anonymous().send(t, "POST", loginPath,
		`{"client":" eclitunnel ","host":"gaming-rig","platform":"linux/amd64","scopes":["enrollment","read","admin"]}`), 200)
	if !strings.HasSuffix(started.VerificationURIComplete, "/device?code="+started.UserCode) {
		t.Errorf("started %+v", started)
	}
	if status := decode[types.DeviceLoginStatus](t, pollLogin(t, p, started.DeviceCode), 200); status.Approved || status.Key != nil || status.User != nil {
		t.Errorf("before the approval: %+v", status)
	}
	typed := strings.ToLower(strings.ReplaceAll(started.UserCode, "-", ""))
	pending := decode[types.PendingLogin](t, ada.send(t, "GET", loginPath+"?userCode="+typed, nil), 200)
	if pending.Client != "eclitunnel" || pending.Host.MustGet() != "gaming-rig" || pending.Platform.MustGet() != "linux/amd64" ||
		!pending.SameNetwork || pending.Address.MustGet() != "127.0.0.1" || len(pending.Scopes) != 3 {
		t.Errorf("the person sees %+v", pending)
	}
	key := decode[types.APIKey](t, ada.send(t, "POST", loginApprovePath, code(typed)), 200)
	// Ada is no admin, and can give away only what she may.
	if key.Name != "eclitunnel on gaming-rig" || fmt.Sprint(key.Scopes) != "[read enrollment]" || !key.ExpiresAt.MustGet().Equal(p.Now().Add(90*24*time.Hour)) {
		t.Errorf("approved as %+v", key)
	}
	got := decode[types.DeviceLoginStatus](t, pollLogin(t, p, started.DeviceCode), 200)
	if !got.Approved || got.Key.ID != key.ID || !strings.HasPrefix(got.Key.Key, key.Prefix) || got.User.Email != "ada@example.com" {
		t.Fatalf("handed out %+v", got)
	}
	program := caller{panel: p, token: got.Key.Key}
	decode[types.Enrollment](t, program.send(t, "POST", "/api/tunnel/device/start", `{"name":"home"}`), 200)
	wantError(t, pollLogin(t, p, started.DeviceCode), 410, types.CodeLoginExpired)
	if keys := decode[[]types.APIKey](t, ada.send(t, "GET", "/api/keys", nil), 200); len(keys) != 1 || keys[0].Prefix != got.Key.Prefix {
		t.Errorf("the list has %+v", keys)
	}
	for _, table := range []string{"api_keys", "device_logins", "audit_log"} {
		var stored int
		err := dbtest.SQL(t, p.db).QueryRowContext(t.Context(),
			`SELECT count(*) FROM `+table+` r WHERE strpos(r::text, $1) > 0 OR strpos(r::text, $2) > 0`, got.Key.Key, started.DeviceCode).Scan(&stored)
		if err != nil || stored != 0 {
			t.Errorf("%s has a secret in %d rows, %v", table, stored, err)
		}
	}
}

func TestDeviceLogin_KeyDoesNoMoreThanWasAskedAndGranted(t *testing.T) {
	p := newPanel(t)
	ada, admin := p.user(t, "ada@example.com", "user"), p.user(t, "admin@example.com", "admin")
	asked := decode[types.DeviceLogin](t, p.anonymous().send(t, "POST", loginPath, `{"client":"eclitunnel","scopes":["read"]}`), 200)
	approve := func(c caller, userCode, more string) answer {
		t.Helper()
		return c.send(t, "POST", loginApprovePath, `{"userCode":"`+userCode+`",`+more+`}`)
	}
	wantError(t, approve(ada, asked.UserCode, `"scopes":["read","devices"]`), 400, types.CodeInvalidRequest)
	wantError(t, approve(ada, asked.UserCode, `"expiresAt":"2020-01-01T00:00:00Z"`), 400, types.CodeInvalidRequest)
	all, deviceCode := p.newLogin(t)
	wantError(t, approve(ada, all, `"scopes":["admin"]`), 403, types.CodeForbidden)
	key := decode[types.APIKey](t, approve(admin, all, `"scopes":["admin","enrollment"],"expiresAt":"2127-01-01T00:00:00Z"`), 200)
	if fmt.Sprint(key.Scopes) != "[enrollment admin]" || key.ExpiresAt.MustGet().Year() != 2127 {
		t.Errorf("approved as %+v", key)
	}
	program := caller{panel: p, token: decode[types.DeviceLoginStatus](t, pollLogin(t, p, deviceCode), 200).Key.Key}
	// A key does not breed keys.
	other, _ := p.newLogin(t)
	wantError(t, approve(program, other, `"scopes":["read"]`), 403, types.CodeForbidden)
	wantError(t, program.send(t, "GET", loginPath+"?userCode="+other, nil), 403, types.CodeForbidden)
	decode[types.User](t, admin.send(t, "PATCH", userPath(ada.user.ID), `{"suspended":true}`), 200)
	wantError(t, approve(ada, other, `"scopes":["read"]`), 401, types.CodeUnauthorized)
}

// TestDeviceLogin_OnePollGetsTheKey polls and approves at two replicas at the same time.
func TestDeviceLogin_OnePollGetsTheKey(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	other := newReplica(t, p.db, p.Now())
	userCode, deviceCode := p.newLogin(t)
	race := func(send func(at *panel) answer) (won []answer) {
		answers := make(chan answer, 8)
		var wg sync.WaitGroup
		for i := range cap(answers) {
			wg.Go(func() { answers <- send([]*panel{p, other}[i%2]) })
		}
		wg.Wait()
		close(answers)
		for a := range answers {
			if a.status == http.StatusOK {
				won = append(won, a)
			}
		}
		return won
	}
	approved := race(func(at *panel) answer {
		c := ada
		c.panel = at
		return c.send(t, "POST", loginApprovePath, code(userCode))
	})
	if len(approved) != 1 {
		t.Fatalf("%d approvals succeeded", len(approved))
	}
	if keys := decode[[]types.APIKey](t, ada.send(t, "GET", "/api/keys", nil), 200); len(keys) != 1 {
		t.Errorf("there are %d keys", len(keys))
	}
	polled := race(func(at *panel) answer {
		return at.anonymous().send(t, "POST", loginPollPath, map[string]string{"deviceCode": deviceCode})
	})
	if len(polled) != 1 || decode[types.DeviceLoginStatus](t, polled[0], 200).Key == nil {
		t.Fatalf("%d polls succeeded", len(polled))
	}
}

func TestDeviceLogin_EndsWithoutAKey(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	revoked, revokedCode := p.newLogin(t)
	key := decode[types.APIKey](t, ada.send(t, "POST", loginApprovePath, code(revoked)), 200)
	decode[types.Success](t, ada.send(t, "DELETE", fmt.Sprintf("/api/keys/%d", key.ID), nil), 200)
	wantError(t, pollLogin(t, p, revokedCode), 403, types.CodeLoginDenied)

	late, lateCode := p.newLogin(t)
	p.advance(enroll.Lifetime)
	wantError(t, ada.send(t, "GET", loginPath+"?userCode="+late, nil), 410, types.CodeLoginExpired)
	wantError(t, ada.send(t, "POST", loginApprovePath, code(late)), 410, types.CodeLoginExpired)
	wantError(t, ada.send(t, "POST", loginDenyPath, code(late)), 410, types.CodeLoginExpired)
	wantError(t, pollLogin(t, p, lateCode), 410, types.CodeLoginExpired)

	unfetched, _ := p.newLogin(t)
	decode[types.APIKey](t, ada.send(t, "POST", loginApprovePath, code(unfetched)), 200)
	if _, _, err := p.db.Maintain(t.Context(), db.Maintenance{EnrollmentsBefore: p.Now().Add(2 * enroll.Lifetime)}); err != nil {
		t.Fatal(err)
	}
	if keys := decode[[]types.APIKey](t, ada.send(t, "GET", "/api/keys", nil), 200); len(keys) != 0 {
		t.Errorf("the list still has %+v", keys)
	}
	wantError(t, ada.send(t, "GET", loginPath+"?userCode="+late, nil), 404, types.CodeNotFound)
}

func TestDeviceLogin_IsLimited(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	userCode, _ := p.newLogin(t)
	p.advance(time.Minute)
	// Enrollments' codes count under the same limit, and are no codes of logins.
	for i := range 10 {
		path := []string{loginApprovePath, loginDenyPath}[i%2]
		wantError(t, ada.send(t, "POST", path, code([]string{"2345-CDFG", "CDFG-2345"}[i/2%2])), 404, types.CodeNotFound)
	}
	limited := ada.send(t, "POST", loginApprovePath, code(userCode))
	wantError(t, limited, 429, types.CodeRateLimited)
	wantLimits(t, limited, `"approval";q=10;w=60`, `"approval";r=0;t=60`)

	start := func() answer {
		return p.anonymous().send(t, "POST", loginPath, `{"client":"eclitunnel","scopes":["read"]}`)
	}
	for range 20 {
		decode[types.DeviceLogin](t, start(), 200)
	}
	wantError(t, start(), 429, types.CodeRateLimited)
	p.advance(9 * time.Minute)
	wantError(t, start(), 429, types.CodeRateLimited)
	p.advance(time.Minute)
	decode[types.DeviceLogin](t, start(), 200)

	_, polled := p.newLogin(t)
	decode[types.DeviceLoginStatus](t, pollLogin(t, p, polled), 200)
	soon := p.anonymous().send(t, "POST", loginPollPath, map[string]string{"deviceCode": polled})
	wantError(t, soon, 429, types.CodeSlowDown)
	if soon.header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After is %q", soon.header.Get("Retry-After"))
	}
}

func TestDeviceLogin_KeyEndsItself(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	userCode, deviceCode := p.newLogin(t)
	decode[types.APIKey](t, ada.send(t, "POST", loginApprovePath, code(userCode)), 200)
	key := decode[types.DeviceLoginStatus](t, pollLogin(t, p, deviceCode), 200).Key
	program := caller{panel: p, token: key.Key}
	decode[[]types.Device](t, program.send(t, "GET", "/api/tunnel/devices", nil), 200)
	for range 2 {
		decode[types.Success](t, p.anonymous().send(t, "POST", loginRevokePath, map[string]string{"key": key.Key}), 200)
		wantError(t, program.send(t, "GET", "/api/tunnel/devices", nil), 401, types.CodeUnauthorized)
	}
	trail := decode[[]types.AuditEntry](t, ada.send(t, "GET", "/api/audit?action=key", nil), 200)
	if len(trail) != 2 || trail[0].Action != "key.delete" || trail[0].Actor.Kind != "key" || trail[0].Actor.Name.MustGet() != key.Name ||
		trail[1].Action != "key.create" || trail[1].Actor.Kind != "user" {
		t.Errorf("the trail has %+v", trail)
	}
	for range 59 {
		decode[types.Success](t, p.anonymous().send(t, "POST", loginRevokePath, `{"key":"unknown"}`), 200)
	}
	wantError(t, p.anonymous().send(t, "POST", loginRevokePath, `{"key":"unknown"}`), 429, types.CodeRateLimited)
}
