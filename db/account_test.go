package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// newSession logs a user in at noon, or later, for a day.
func newSession(t *testing.T, d *db.DB, user db.User, after time.Duration, place string) db.Session {
	t.Helper()
	at := noon.Add(after)
	session := db.Session{
		ID: uuid.New(), UserID: user.ID, CreatedAt: at, ExpiresAt: at.Add(24 * time.Hour), LastUsedAt: at,
		Address: "192.0.2.1", UserAgent: "curl/8",
	}
	check(t, d.CreateSession(t.Context(), session, user.PasswordHash, []byte(place), at))
	return session
}

func alive(t *testing.T, d *db.DB, session db.Session) bool {
	t.Helper()
	_, _, err := d.SessionUser(t.Context(), session.ID, session.CreatedAt)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func proof(user db.User, session db.Session) db.Proof {
	return db.Proof{UserID: user.ID, SessionID: session.ID, PasswordHash: user.PasswordHash}
}

// TestSessions_PagesByAnIndex reads pages of 20,000 sessions of one user, among those of others.
func TestSessions_PagesByAnIndex(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	newUser(t, d, "bob@example.com", "user")
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		`INSERT INTO sessions (id, user_id, created_at, expires_at)
			SELECT gen_random_uuid(), u.id, now() - n * interval '1 second', now() + interval '1 day' FROM users u, generate_series(1, 20000) n`,
		`ANALYZE sessions`,
	} {
		if _, err := sql.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for name, args := range map[string][]any{
		"first page": {ada.ID, now, nil, nil, 101},
		"page":       {ada.ID, now, now.Add(-10000 * time.Second), uuid.NewString(), 101},
	} {
		text := plan(t, sql, db.SessionsQuery, args...)
		if !strings.Contains(text, "sessions_order_idx") || strings.Contains(text, "Sort") || strings.Contains(text, "Removed by Filter") {
			t.Errorf("%s reads more than its page:\n%s", name, text)
		}
	}
}

func TestSessions_AreTheUsersOwnAndNotEnded(t *testing.T) {
	d := dbtest.New(t)
	ada, eve := newUser(t, d, "ada@example.com", "user"), newUser(t, d, "eve@example.com", "user")
	first, second, third := newSession(t, d, ada, 0, "home"), newSession(t, d, ada, time.Minute, "home"), newSession(t, d, ada, time.Hour, "home")
	hers := newSession(t, d, eve, time.Minute, "home")
	now := noon.Add(24 * time.Hour) // The first has expired.
	page, err := d.Sessions(t.Context(), ada.ID, now, db.Page[db.SessionPosition]{Limit: 1})
	check(t, err)
	if len(page) != 1 || page[0] != third {
		t.Fatalf("the first page is %+v, want %+v", page, third)
	}
	page, err = d.Sessions(t.Context(), ada.ID, now, db.Page[db.SessionPosition]{After: &db.SessionPosition{CreatedAt: third.CreatedAt, ID: third.ID}})
	check(t, err)
	if len(page) != 1 || page[0] != second {
		t.Errorf("the second page is %+v, want %+v", page, second)
	}
	for name, id := range map[string]uuid.UUID{"another user's": hers.ID, "an expired": first.ID, "no": uuid.New()} {
		if err := d.EndSession(t.Context(), ada.ID, id, now); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("%s session is ended: %v", name, err)
		}
	}
	check(t, d.EndSession(t.Context(), ada.ID, second.ID, now))
	newSession(t, d, ada, time.Hour, "home")
	ended, err := d.EndOtherSessions(t.Context(), ada.ID, third.ID, now)
	check(t, err)
	if ended != 1 || alive(t, d, second) || !alive(t, d, third) || !alive(t, d, hers) {
		t.Errorf("%d sessions ended, want 1 of one user", ended)
	}
}

func TestRecordSessionUses_StoresOneInAMinute(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	session, before := newSession(t, d, ada, 0, "home"), newSession(t, d, ada, 0, "home")
	sql := dbtest.SQL(t, d)
	// As a replica of the previous version creates it.
	if _, err := sql.ExecContext(t.Context(), `UPDATE sessions SET last_used_at = NULL, address = '', user_agent = '' WHERE id = $1`, before.ID); err != nil {
		t.Fatal(err)
	}
	use := func(after time.Duration, address string) {
		t.Helper()
		uses := []db.SessionUse{{ID: uuid.New()}, {ID: session.ID, Address: address, UserAgent: "new"}, {ID: before.ID, Address: address}}
		check(t, d.RecordSessionUses(t.Context(), uses, noon.Add(after)))
	}
	want := func(id uuid.UUID, after time.Duration, address, agent string) {
		t.Helper()
		got, _, err := d.SessionUser(t.Context(), id, noon)
		check(t, err)
		if !got.LastUsedAt.Equal(noon.Add(after)) || got.Address != address || got.UserAgent != agent {
			t.Errorf("last used %v, from %q with %q; want %v, %q, %q", got.LastUsedAt, got.Address, got.UserAgent, noon.Add(after), address, agent)
		}
	}
	use(59*time.Second, "192.0.2.2")
	want(session.ID, 0, "192.0.2.1", "curl/8")
	want(before.ID, 0, "", "")
	use(time.Minute, "192.0.2.3")
	want(session.ID, time.Minute, "192.0.2.3", "new")
	want(before.ID, time.Minute, "192.0.2.3", "")

	// Whoever holds a row does not hold up the others.
	tx, err := sql.BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE`, session.ID); err != nil {
		t.Fatal(err)
	}
	use(time.Hour, "192.0.2.4")
	want(session.ID, time.Minute, "192.0.2.3", "new")
	want(before.ID, time.Hour, "192.0.2.4", "")
}

func TestChangePassword_EndsWhatTheOldOneAllowed(t *testing.T) {
	d := dbtest.New(t)
	ada, eve := newUser(t, d, "ada@example.com", "user"), newUser(t, d, "eve@example.com", "user")
	own, other := newSession(t, d, ada, 0, "home"), newSession(t, d, ada, 0, "elsewhere")
	hers := newSession(t, d, eve, 0, "elsewhere")
	link := db.PasswordLink{UserID: ada.ID, TokenHash: []byte("link"), ExpiresAt: noon.Add(time.Hour)}
	_, err := d.CreatePasswordLink(t.Context(), link)
	check(t, err)
	changed, err := d.ChangePassword(t.Context(), proof(ada, own), "new", []byte("home"))
	check(t, err)
	if changed.PasswordHash != "new" || !alive(t, d, own) || alive(t, d, other) || !alive(t, d, hers) {
		t.Errorf("%+v; this session is alive: %v, the other: %v, another user's: %v", changed, alive(t, d, own), alive(t, d, other), alive(t, d, hers))
	}
	if valid, err := d.PasswordLinkValid(t.Context(), link.TokenHash, noon); err != nil || valid {
		t.Errorf("the link is valid: %v, %v", valid, err)
	}
	for place, want := range map[string]bool{"home": true, "elsewhere": false} {
		if _, known, err := d.UserAt(t.Context(), ada.Email, []byte(place), noon); err != nil || known != want {
			t.Errorf("%s is known: %v, %v", place, known, err)
		}
	}
}

// TestChangeAccount_NeedsAProofThatHolds: what was true when the password was checked may be so no longer.
func TestChangeAccount_NeedsAProofThatHolds(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	ada, eve := newUser(t, d, "ada@example.com", "user"), newUser(t, d, "eve@example.com", "user")
	suspended, hers := newUser(t, d, "sue@example.com", "user"), newSession(t, d, eve, 0, "home")
	old, ended := newSession(t, d, ada, 0, "home"), newSession(t, d, ada, 0, "home")
	sues := newSession(t, d, suspended, 0, "home")
	check(t, d.DeleteSession(t.Context(), ended.ID))
	_, err := d.UpdateUser(t.Context(), suspended.ID, db.UserPatch{Suspended: new(true)})
	check(t, err)
	stale := ada
	stale.PasswordHash = "before"
	for name, test := range map[string]struct {
		proof db.Proof
		want  error
	}{
		"an old password":        {proof(stale, old), db.ErrPasswordChanged},
		"an ended session":       {proof(ada, ended), db.ErrNotFound},
		"another user's session": {proof(ada, hers), db.ErrNotFound},
		"a suspended user":       {proof(suspended, sues), db.ErrNotFound},
	} {
		if _, err := d.ChangePassword(t.Context(), test.proof, "new", []byte("home")); !errors.Is(err, test.want) {
			t.Errorf("%s changes the password: %v", name, err)
		}
		if _, err := d.ChangeEmail(t.Context(), test.proof, "new@example.com"); !errors.Is(err, test.want) {
			t.Errorf("%s changes the email: %v", name, err)
		}
	}
	if _, err := d.ChangeEmail(t.Context(), proof(ada, old), "EVE@example.com"); !errors.Is(err, db.ErrConflict) || errors.Is(err, db.ErrPasswordChanged) {
		t.Errorf("the email of another account: %v", err)
	}
	user, err := d.UserByID(t.Context(), ada.ID)
	check(t, err)
	if user != ada || !alive(t, d, old) {
		t.Errorf("refused changes left %+v", user)
	}
	user, err = d.ChangeEmail(t.Context(), proof(ada, old), "Ada@example.org")
	check(t, err)
	if user.Email != "Ada@example.org" || !alive(t, d, old) {
		t.Errorf("changed to %+v", user)
	}
}

// TestChangePassword_EndsLoginsInProgress changes a password while others log in with the old one, and
// change it too.
func TestChangePassword_EndsLoginsInProgress(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	for round := range 10 {
		own := []db.Session{newSession(t, d, ada, 0, "home"), newSession(t, d, ada, 0, "home")}
		var group sync.WaitGroup
		logins := make([]db.Session, 4)
		for i := range logins {
			logins[i] = db.Session{ID: uuid.New(), UserID: ada.ID, CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}
			group.Go(func() {
				err := d.CreateSession(context.Background(), logins[i], ada.PasswordHash, []byte("home"), noon)
				if err != nil && !errors.Is(err, db.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		changed := make([]db.User, len(own))
		errs := make([]error, len(own))
		for i := range own {
			group.Go(func() {
				changed[i], errs[i] = d.ChangePassword(context.Background(), proof(ada, own[i]), fmt.Sprint("hash ", round, i), []byte("home"))
			})
		}
		group.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		if errs[winner] != nil || !errors.Is(errs[1-winner], db.ErrPasswordChanged) {
			t.Fatalf("two changes: %v, %v", errs[0], errs[1])
		}
		if !alive(t, d, own[winner]) || alive(t, d, own[1-winner]) {
			t.Error("another session is left than that of the change")
		}
		for _, login := range logins {
			if alive(t, d, login) {
				t.Error("a session of the old password is left")
			}
		}
		ada = changed[winner]
	}
}
