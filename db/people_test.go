package db_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// newUser creates a user who has a password.
func newUser(t *testing.T, d *db.DB, email, role string) db.User {
	t.Helper()
	user, err := d.CreateUser(t.Context(), email, "hash", role)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// plan runs a query and returns how Postgres did it.
func plan(t *testing.T, sql *sql.DB, query string, args ...any) string {
	t.Helper()
	rows, err := sql.QueryContext(t.Context(), `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) `+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// TestUsers_PagesAndSearchesByAnIndex reads pages of 20,000 users, of which each page reads
// the index at its own position and no other row.
func TestUsers_PagesAndSearchesByAnIndex(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	if _, err := sql.ExecContext(t.Context(),
		`INSERT INTO users (email, password_hash, role) SELECT format('User%s@example.com', lpad(n::text, 5, '0')), '', 'user'
		FROM generate_series(1, 20000) n`); err != nil {
		t.Fatal(err)
	}
	if _, err := sql.ExecContext(t.Context(), `ANALYZE users`); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]any{
		"first page":        {"", "", db.LastCharacter, 101},
		"page":              {"", "User10000@example.com", db.LastCharacter, 101},
		"search of many":    {"user1", "user15000@example.com", db.LastCharacter, 101},
		"search of one":     {"uSer19999@", "", db.LastCharacter, 101},
		"search of nothing": {"nobody", "", db.LastCharacter, 101},
	} {
		text := plan(t, sql, db.UsersQuery, args...)
		if !strings.Contains(text, "users_order_idx") || strings.Contains(text, "Sort") || strings.Contains(text, "Removed by Filter") {
			t.Errorf("%s reads more than its page:\n%s", name, text)
		}
	}
}

func TestUsers_AreInTheOrderOfTheirEmailsWhateverTheirCase(t *testing.T) {
	d := dbtest.New(t)
	for _, email := range []string{"bob@example.com", "Ada@example.com", "Éva@example.com", "bobby@example.com", "a_b@example.com", "a%@example.com"} {
		newUser(t, d, email, "user")
	}
	list := func(search string) (emails []string) {
		var after *string
		for {
			page, err := d.Users(t.Context(), search, db.Page[string]{Limit: 1, After: after})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return emails
			}
			emails = append(emails, page[0].Email)
			after = &page[0].Email
		}
	}
	for search, want := range map[string][]string{
		"":     {"a%@example.com", "a_b@example.com", "Ada@example.com", "bob@example.com", "bobby@example.com", "Éva@example.com"},
		"BOB":  {"bob@example.com", "bobby@example.com"},
		"bob@": {"bob@example.com"},
		"a%":   {"a%@example.com"},
		"a_":   {"a_b@example.com"},
		"Éva":  {"Éva@example.com"},
		"c":    nil,
	} {
		if got := list(search); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", search, got, want)
		}
	}
}

// TestUsers_OneAdminStays lets two admins depose each other at the same time, in every way.
func TestUsers_OneAdminStays(t *testing.T) {
	role, suspended := "user", true
	for name, depose := range map[string]func(d *db.DB, id int64) error{
		"demoted": func(d *db.DB, id int64) error {
			_, err := d.UpdateUser(context.Background(), id, db.UserPatch{Role: &role})
			return err
		},
		"suspended": func(d *db.DB, id int64) error {
			_, err := d.UpdateUser(context.Background(), id, db.UserPatch{Suspended: &suspended})
			return err
		},
		"deleted": func(d *db.DB, id int64) error { return d.DeleteUser(context.Background(), id, db.DevicesOf{}) },
	} {
		t.Run(name, func(t *testing.T) {
			d := dbtest.New(t)
			// Who has never had a password could let nobody in.
			if _, err := d.CreateUser(t.Context(), "new@example.com", "", "admin"); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				deposeBoth(t, d, depose)
			}
		})
	}
}

// deposeBoth has two admins deposed at the same moment: both transactions wait for rows, or one for
// the other, when the rows are released.
func deposeBoth(t *testing.T, d *db.DB, depose func(d *db.DB, id int64) error) {
	t.Helper()
	sql := dbtest.SQL(t, d)
	if _, err := sql.ExecContext(t.Context(), `DELETE FROM users WHERE password_hash <> ''`); err != nil {
		t.Fatal(err)
	}
	admins := []db.User{newUser(t, d, "one@example.com", "admin"), newUser(t, d, "two@example.com", "admin")}
	holder, err := sql.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.ExecContext(t.Context(), `SELECT FROM users FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	results := make([]error, len(admins))
	var group sync.WaitGroup
	for i, admin := range admins {
		group.Go(func() { results[i] = depose(d, admin.ID) })
	}
	await.Until(t, "two transactions that wait", func() bool {
		var waiting int
		row := sql.QueryRowContext(t.Context(),
			`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		return row.Scan(&waiting) == nil && waiting == len(admins)
	})
	if err := holder.Commit(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if (results[0] == nil) == (results[1] == nil) || !errors.Is(errors.Join(results...), db.ErrLastAdmin) {
		t.Errorf("both were deposed, or neither: %v", results)
	}
}

// TestSuspend_LeavesNoSession suspends a user while they log in.
func TestSuspend_LeavesNoSession(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	ada := newUser(t, d, "ada@example.com", "user")
	suspend := func(suspended bool) {
		if _, err := d.UpdateUser(t.Context(), ada.ID, db.UserPatch{Suspended: &suspended}); err != nil {
			t.Fatal(err)
		}
	}
	expires := time.Now().Add(time.Hour)
	for range 10 {
		var group sync.WaitGroup
		ids := make([]uuid.UUID, 4)
		for i := range ids {
			ids[i] = uuid.New()
			group.Go(func() {
				err := d.CreateSession(t.Context(), db.Session{ID: ids[i], UserID: ada.ID, ExpiresAt: expires}, "hash", []byte("home"), time.Now())
				if err != nil && !errors.Is(err, db.ErrConflict) {
					t.Error(err)
				}
			})
		}
		suspend(true)
		group.Wait()
		for _, id := range ids {
			if _, _, err := d.SessionUser(t.Context(), id, time.Now()); !errors.Is(err, db.ErrNotFound) {
				t.Errorf("a suspended user has a session: %v", err)
			}
		}
		suspend(false)
	}
}

func TestDeleteUser_NeverLeavesDevicesBehind(t *testing.T) {
	d := dbtest.New(t)
	root, ada := newUser(t, d, "root@example.com", "admin"), newUser(t, d, "ada@example.com", "user")
	device := func() uuid.UUID {
		created, err := d.CreateDevice(t.Context(), db.NewDevice{
			Name: "home", Kind: db.KindClient, OwnerID: &ada.ID, CreatedAt: time.Now(), ExpiresAt: time.Now(), Approved: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		return created.ID
	}
	first, second := device(), device()
	// Whoever started it may never come back to it.
	if _, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "new", Kind: db.KindClient, OwnerID: &ada.ID, CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
		CodeHash: []byte("code"), UserCode: "CDFG-2345",
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteUser(t.Context(), ada.ID, db.DevicesOf{}); !errors.Is(err, db.ErrOwnsDevices) {
		t.Fatalf("deleted with devices: %v", err)
	}
	for _, other := range []int64{ada.ID, 999} {
		if err := d.DeleteUser(t.Context(), ada.ID, db.DevicesOf{MoveTo: &other}); !errors.Is(err, db.ErrNoOwner) {
			t.Errorf("devices moved to user %d: %v", other, err)
		}
	}
	if err := d.DeleteUser(t.Context(), ada.ID, db.DevicesOf{MoveTo: &root.ID}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uuid.UUID{first, second} {
		moved, err := d.DeviceByID(t.Context(), id)
		if err != nil || moved.OwnerID == nil || *moved.OwnerID != root.ID {
			t.Errorf("moved: %+v, %v", moved, err)
		}
	}
	ada = newUser(t, d, "ada@example.com", "user")
	third := device()
	if err := d.DeleteUser(t.Context(), ada.ID, db.DevicesOf{Delete: true}); err != nil {
		t.Fatal(err)
	}
	if deleted, err := d.DeviceDeleted(t.Context(), third); err != nil || !deleted {
		t.Errorf("the device has no tombstone: %v", err)
	}
	// As many as take longer than a statement may, if each took statements of its own.
	ada = newUser(t, d, "ada@example.com", "user")
	if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `INSERT INTO devices (id, name, kind, owner_id, created_at, expires_at, approved_at)
		SELECT gen_random_uuid(), 'home', 'client', $1, now(), now(), now() FROM generate_series(1, 2000)`, ada.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteUser(t.Context(), ada.ID, db.DevicesOf{Delete: true}); err != nil {
		t.Fatal(err)
	}
	owner := newUser(t, d, "otto@example.com", "user")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, owner.ID, "owner")
	if err := d.DeleteUser(t.Context(), owner.ID, db.DevicesOf{}); !errors.Is(err, db.ErrLastOwner) {
		t.Errorf("an organisation is without an owner: %v", err)
	}
	dbtest.Member(t, d, guild, root.ID, "owner")
	if err := d.DeleteUser(t.Context(), owner.ID, db.DevicesOf{}); err != nil {
		t.Error(err)
	}
}

// TestPasswordLink_EndsLoginsInProgress changes a password while others log in with the
// old one.
func TestPasswordLink_EndsLoginsInProgress(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	old, expires := ada.PasswordHash, time.Now().Add(time.Hour)
	for round := range 10 {
		link := fmt.Append(nil, "link ", round)
		if _, err := d.CreatePasswordLink(t.Context(), db.PasswordLink{UserID: ada.ID, TokenHash: link, ExpiresAt: expires}); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		ids := make([]uuid.UUID, 4)
		for i := range ids {
			ids[i] = uuid.New()
			group.Go(func() {
				session := db.Session{ID: ids[i], UserID: ada.ID, ExpiresAt: expires}
				err := d.CreateSession(t.Context(), session, old, []byte("home"), time.Now())
				if err != nil && !errors.Is(err, db.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		changed := fmt.Sprint("hash ", round)
		if err := d.UsePasswordLink(t.Context(), link, changed, time.Now()); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		for _, id := range ids {
			if _, _, err := d.SessionUser(t.Context(), id, time.Now()); !errors.Is(err, db.ErrNotFound) {
				t.Errorf("a session of the old password is left: %v", err)
			}
		}
		if _, known, err := d.UserAt(t.Context(), ada.Email, []byte("home"), time.Now()); err != nil || known {
			t.Errorf("the place of a login with the old password is known: %t, %v", known, err)
		}
		old = changed
	}
}

// TestPasswordLink_WorksOnce uses a link several times at once.
func TestPasswordLink_WorksOnce(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	ada := newUser(t, d, "ada@example.com", "user")
	now := time.Now()
	create := func(hash string, expires time.Time) {
		t.Helper()
		if _, err := d.CreatePasswordLink(t.Context(), db.PasswordLink{UserID: ada.ID, TokenHash: []byte(hash), ExpiresAt: expires}); err != nil {
			t.Fatal(err)
		}
	}
	use := func(hash string) error { return d.UsePasswordLink(t.Context(), []byte(hash), "new "+hash, now) }
	create("replaced", now.Add(time.Hour))
	create("once", now.Add(time.Hour))
	used := make([]error, 4)
	var group sync.WaitGroup
	for i := range used {
		group.Go(func() { used[i] = use("once") })
	}
	group.Wait()
	if n := len(slices.DeleteFunc(slices.Clone(used), func(err error) bool { return err != nil })); n != 1 {
		t.Errorf("used %d times: %v", n, used)
	}
	create("expired", now)
	for _, hash := range []string{"replaced", "once", "expired"} {
		if err := use(hash); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("%s: %v", hash, err)
		}
	}
	for name, patch := range map[string]db.UserPatch{"suspension": {Suspended: new(true)}, "another email": {Email: new("ada@example.org")}} {
		create(name, now.Add(time.Hour))
		if _, err := d.UpdateUser(t.Context(), ada.ID, patch); err != nil {
			t.Fatal(err)
		}
		if err := use(name); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("the link outlives a %s: %v", name, err)
		}
		if _, err := d.UpdateUser(t.Context(), ada.ID, db.UserPatch{Suspended: new(false)}); err != nil {
			t.Fatal(err)
		}
	}
	if user, err := d.UserByEmail(t.Context(), "ADA@example.org"); err != nil || user.PasswordHash != "new once" {
		t.Errorf("%+v, %v", user, err)
	}
}
