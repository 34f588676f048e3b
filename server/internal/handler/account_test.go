package handler_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// withoutPassword returns a user whose identity comes from elsewhere.
func (p *panel) withoutPassword(t *testing.T) caller {
	t.Helper()
	user, err := p.db.CreateUser(t.Context(), "elsewhere@example.com", "", "user")
	if err != nil {
		t.Fatal(err)
	}
	login, err := p.auth.NewSession(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return caller{panel: p, user: user, token: login.Token}
}

// again logs a user in once more.
func (c caller) again(t *testing.T, headers ...string) caller {
	t.Helper()
	a := c.panel.anonymous().send(t, "POST", "/api/auth/login", map[string]string{"email": c.user.Email, "password": password}, headers...)
	c.token = decode[types.Login](t, a, 200).Token
	return c
}

func (c caller) changePassword(t *testing.T, current, next string, headers ...string) answer {
	t.Helper()
	return c.send(t, "POST", "/api/account/password", map[string]string{"currentPassword": current, "newPassword": next}, headers...)
}

func (c caller) changeEmail(t *testing.T, current, email string, headers ...string) answer {
	t.Helper()
	return c.send(t, "PATCH", "/api/account", map[string]string{"currentPassword": current, "email": email}, headers...)
}

func (c caller) sessions(t *testing.T) []types.AccountSession {
	t.Helper()
	return decode[[]types.AccountSession](t, c.send(t, "GET", "/api/account/sessions", nil), 200)
}

// wantEnded checks that a session is refused, at its own panel and at others.
func (c caller) wantEnded(t *testing.T, replicas ...*panel) {
	t.Helper()
	for _, replica := range append(replicas, c.panel) {
		c.panel = replica
		wantError(t, c.send(t, "GET", "/api/account", nil), 401, types.CodeUnauthorized)
	}
}

func TestChangePassword_EndsOtherSessionsOnEveryReplica(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	admin, own := p.user(t, "root@example.com", "admin"), p.user(t, ada, "user")
	elsewhere := own.again(t, "X-Forwarded-For", "198.51.100.1")
	link := decode[types.PasswordLink](t, admin.send(t, "POST", userPath(own.user.ID)+"/password-link", nil), 200)
	const next = "another correct horse"
	wantField(t, own.changePassword(t, password, "too short"), "newPassword")
	wantError(t, own.changePassword(t, next, next), 403, types.CodeWrongPassword)
	a := own.changePassword(t, password, next)
	decode[any](t, a, 204)
	browser, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")

	decode[types.Account](t, own.send(t, "GET", "/api/account", nil), 200)
	elsewhere.wantEnded(t, other)
	wantError(t, p.setPassword(t, link, password), 404, types.CodeNotFound)
	decode[types.Session](t, admin.send(t, "GET", "/api/auth/session", nil), 200)
	// The address and the browser of the change stay known, others do not.
	for name, place := range map[string]struct {
		address, cookies string
		slowed           int
	}{
		"the browser":       {"198.51.100.2", browser, 0},
		"the address":       {"127.0.0.1", "", 0},
		"the other address": {"198.51.100.1", "", 1},
	} {
		p.attack(t, ada)
		p.wantSlowed(t, name, place.slowed, func() { p.logIn(t, place.address, ada, "wrong", place.cookies) })
	}
	wantError(t, p.login(t, ada, password), 401, types.CodeUnauthorized)
	decode[types.Login](t, p.login(t, ada, next), 200)
}

func TestChangeEmail_IsTheNewLogin(t *testing.T) {
	p := newPanel(t)
	admin, own := p.user(t, "root@example.com", "admin"), p.user(t, ada, "user")
	link := decode[types.PasswordLink](t, admin.send(t, "POST", userPath(own.user.ID)+"/password-link", nil), 200)
	wantField(t, own.changeEmail(t, password, "ada"), "email")
	wantField(t, own.changeEmail(t, password, "ada@example.com\r\nBcc: eve@example.com"), "email")
	wantError(t, own.changeEmail(t, "guess", "ada@example.org"), 403, types.CodeWrongPassword)
	wantError(t, own.changeEmail(t, password, "ROOT@example.com"), 409, types.CodeConflict)
	account := decode[types.Account](t, own.changeEmail(t, password, "Ada@Example.org"), 200)
	if account.Email != "Ada@Example.org" || account.ID != own.user.ID || account.Role != types.RoleUser || !account.HasPassword || account.CreatedAt.IsZero() {
		t.Errorf("changed to %+v", account)
	}
	if got := decode[types.Account](t, own.send(t, "GET", "/api/account", nil), 200); got != account {
		t.Errorf("the account is %+v, want %+v", got, account)
	}
	wantError(t, p.login(t, ada, password), 401, types.CodeUnauthorized)
	decode[types.Login](t, p.login(t, "ada@example.org", password), 200)
	wantError(t, p.setPassword(t, link, password), 404, types.CodeNotFound)
	for i := range 18 { // Two of 20 attempts were made above.
		own.changeEmail(t, password, fmt.Sprintf("ada%d@example.org", i))
	}
	wantError(t, own.changeEmail(t, password, "root@example.com"), 429, types.CodeRateLimited)
}

// TestAccount_AStolenSessionGuessesSlowly: wherever the thief is, and however the password is asked for.
func TestAccount_AStolenSessionGuessesSlowly(t *testing.T) {
	p := newPanel(t)
	own := p.user(t, ada, "user")
	stolen := own.again(t)
	guesses := map[string]func(t *testing.T, address, current string) answer{
		"email": func(t *testing.T, address, current string) answer {
			t.Helper()
			return stolen.changeEmail(t, current, ada, "X-Forwarded-For", address)
		},
		"password": func(t *testing.T, address, current string) answer {
			t.Helper()
			return stolen.changePassword(t, current, password, "X-Forwarded-For", address)
		},
	}
	tried := 0
	for range 5 {
		for _, guess := range guesses {
			tried++
			wantError(t, guess(t, fmt.Sprint("198.51.100.", tried), "guess"), 403, types.CodeWrongPassword)
		}
	}
	for name, guess := range guesses {
		a := guess(t, "203.0.113.1", password)
		wantError(t, a, 429, types.CodeRateLimited)
		if a.header.Get("Retry-After") != "60" {
			t.Errorf("%s: Retry-After is %q", name, a.header.Get("Retry-After"))
		}
	}
	// The owner's session does not suffer, and what was guessed counts for the account.
	decode[types.Account](t, own.changeEmail(t, password, ada), 200)
	for range 50 - tried {
		if attempt, err := p.db.Take(t.Context(), "login:email:"+ada, 50, time.Minute, p.Now()); err != nil || attempt.RetryAfter > 0 {
			t.Fatalf("%+v, %v", attempt, err)
		}
	}
	p.wantSlowed(t, "a login after guesses with a session", 1, func() { p.logIn(t, "203.0.113.2", ada, "guess", "") })
	p.advance(time.Minute)
	p.attack(t, ada)
	p.wantSlowed(t, "a guess with a session after failed logins", 1, func() {
		wantError(t, guesses["password"](t, "203.0.113.3", "guess"), 403, types.CodeWrongPassword)
	})
	// One address is limited as by failed logins.
	p.exceed(t, "login:address:203.0.113.4", 30)
	wantError(t, guesses["email"](t, "203.0.113.4", password), 429, types.CodeRateLimited)
}

func TestAccount_WithoutAPasswordHasNoneToProve(t *testing.T) {
	p := newPanel(t)
	elsewhere := p.withoutPassword(t)
	if account := decode[types.Account](t, elsewhere.send(t, "GET", "/api/account", nil), 200); account.HasPassword {
		t.Errorf("the account is %+v", account)
	}
	for range 12 { // It is no guess.
		wantError(t, elsewhere.changeEmail(t, "guess", ada), 409, types.CodeConflict)
		wantError(t, elsewhere.changePassword(t, "guess", password), 409, types.CodeConflict)
	}
	// The rest needs no password.
	if sessions := elsewhere.sessions(t); len(sessions) != 1 || !sessions[0].Current {
		t.Errorf("sessions %+v", sessions)
	}
}

func TestAccountSessions_SayWhenAndFromWhere(t *testing.T) {
	p := newPanel(t)
	own := p.user(t, ada, "user")
	p.user(t, eve, "user")
	p.advance(time.Second)
	long := strings.Repeat("x", 300)
	there := own.again(t, "X-Forwarded-For", "2001:db8::1", "User-Agent", "Fire\tfox \u202e \x80"+long)
	sessions := there.sessions(t)
	if len(sessions) != 2 {
		t.Fatalf("listed %+v", sessions)
	}
	login, first := sessions[0], sessions[1]
	if !login.Current || first.Current || login.ID == first.ID {
		t.Errorf("current are %v and %v", login.Current, first.Current)
	}
	if !login.CreatedAt.Equal(p.Now()) || !login.LastUsedAt.Equal(p.Now()) || login.ExpiresAt.Before(p.Now().Add(29*24*time.Hour)) {
		t.Errorf("created %v, used %v, expires %v", login.CreatedAt, login.LastUsedAt, login.ExpiresAt)
	}
	if login.Address == nil || *login.Address != "2001:db8::1" {
		t.Errorf("the address is %v", login.Address)
	}
	if want := ("Firefox  " + long)[:200]; login.UserAgent == nil || *login.UserAgent != want {
		t.Errorf("the user agent is %q, want %q", *login.UserAgent, want)
	}
	if there.token == login.ID.String() || strings.Contains(string(there.send(t, "GET", "/api/account/sessions", nil).body), there.token) {
		t.Error("the token is shown")
	}
	for _, id := range []string{login.ID.String(), first.ID.String()} { // Which are no credentials.
		wantError(t, caller{panel: p, token: id}.send(t, "GET", "/api/account", nil), 401, types.CodeUnauthorized)
	}

	// Further uses, of which one in a minute is stored.
	lastUse := func() types.AccountSession {
		t.Helper()
		for _, session := range own.sessions(t) {
			if session.ID == login.ID {
				return session
			}
		}
		t.Fatal("the session is not listed")
		return types.AccountSession{}
	}
	p.advance(59 * time.Second)
	there.send(t, "GET", "/api/account", nil, "X-Forwarded-For", "192.0.2.7")
	p.advance(time.Second)
	there.send(t, "GET", "/api/account", nil, "X-Forwarded-For", "192.0.2.8", "User-Agent", "curl/8")
	await.Until(t, "stored use", func() bool { return lastUse().LastUsedAt.Equal(p.Now()) })
	if got := lastUse(); *got.Address != "192.0.2.8" || *got.UserAgent != "curl/8" {
		t.Errorf("the last use is %v with %v", *got.Address, *got.UserAgent)
	}
}

// TestAccountSessions_AreUsedWhileTheyCannotBeStored: a request neither fails nor waits for the
// record of its session.
func TestAccountSessions_AreUsedWhileTheyCannotBeStored(t *testing.T) {
	p := newPanel(t)
	own := p.user(t, ada, "user")
	sql := dbtest.SQL(t, p.db)
	if _, err := sql.ExecContext(t.Context(), `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END; $$;
		CREATE TRIGGER refuse BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.advance(time.Minute)
		decode[types.Account](t, own.send(t, "GET", "/api/account", nil), 200)
	}
	if _, err := sql.ExecContext(t.Context(), `DROP TRIGGER refuse ON sessions`); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "stored use", func() bool { return own.sessions(t)[0].LastUsedAt.Equal(p.Now()) })
}

func TestAccountSessions_EndOnEveryReplica(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	own, stranger := p.user(t, ada, "user"), p.user(t, eve, "user")
	p.advance(time.Second)
	second := own.again(t)
	sessions := own.sessions(t)
	path := func(id uuid.UUID) string { return "/api/account/sessions/" + id.String() }
	for name, a := range map[string]answer{
		"another user's": stranger.send(t, "DELETE", path(sessions[0].ID), nil),
		"no session":     own.send(t, "DELETE", path(uuid.New()), nil),
	} {
		if wantError(t, a, 404, types.CodeNotFound); a.status != http.StatusNotFound {
			t.Errorf("%s is ended", name)
		}
	}
	decode[types.Success](t, own.send(t, "DELETE", path(sessions[0].ID), nil), 200)
	second.wantEnded(t, other)
	wantError(t, own.send(t, "DELETE", path(sessions[0].ID), nil), 404, types.CodeNotFound)

	third, fourth := own.again(t), own.again(t)
	if ended := decode[types.SessionsEnded](t, own.send(t, "DELETE", "/api/account/sessions", nil), 200); ended.Ended != 2 {
		t.Errorf("%d sessions ended, want 2", ended.Ended)
	}
	third.wantEnded(t, other)
	fourth.wantEnded(t, other)
	decode[types.Account](t, stranger.send(t, "GET", "/api/account", nil), 200)
	decode[types.Success](t, own.send(t, "DELETE", path(sessions[1].ID), nil), 200)
	own.wantEnded(t, other)
}

func TestAccountSessions_Page(t *testing.T) {
	p := newPanel(t)
	own := p.user(t, ada, "user")
	for i := range 4 {
		if err := p.db.CreateSession(t.Context(), db.Session{ID: uuid.New(), UserID: own.user.ID, ExpiresAt: p.Now().Add(time.Hour)},
			mustHash(t), []byte("home"), p.Now().Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	var listed []types.AccountSession
	next := "/api/account/sessions?limit=2"
	for next != "" {
		a := own.send(t, "GET", next, nil)
		page := decode[[]types.AccountSession](t, a, 200)
		listed = append(listed, page...)
		// The last one of a page has ended when the next is read.
		if id := page[len(page)-1].ID; !page[len(page)-1].Current {
			decode[types.Success](t, own.send(t, "DELETE", "/api/account/sessions/"+id.String(), nil), 200)
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if len(listed) != 5 {
		t.Errorf("listed %d sessions, want 5", len(listed))
	}
	for i, session := range listed[1:] {
		if session.CreatedAt.After(listed[i].CreatedAt) {
			t.Errorf("%v follows %v", session.CreatedAt, listed[i].CreatedAt)
		}
	}
	wantField(t, own.send(t, "GET", "/api/account/sessions?after=AA", nil), "after")
}

func mustHash(t *testing.T) string {
	t.Helper()
	hash, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}
