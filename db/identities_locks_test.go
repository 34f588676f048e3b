package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestSyncIdentity_LocksInTheOrderOfOthers has syncs wait for what another transaction has locked, which then locks
// something that comes later in the order of db/organisations.go. It must be free.
func TestSyncIdentity_LocksInTheOrderOfOthers(t *testing.T) {
	const (
		user         = `SELECT FROM users WHERE email = 'Grace@example.com' FOR UPDATE`
		organisation = `SELECT FROM organisations WHERE external_id = `
	)
	// As texts, "12" comes before "7". Of the rows, that of "12" has the higher id.
	navy, yale := db.IdentityOrganisation{ID: "7", Name: "US Navy", Role: "owner"}, db.IdentityOrganisation{ID: "12", Name: "Yale University", Role: "admin"}
	eckert := db.IdentityOrganisation{ID: "3", Name: "Eckert", Role: "member"} // A new one.
	d := patient(t)
	d.SetRequestWait(time.Minute)
	for name, test := range map[string]struct {
		first, second string
		syncs         [][]db.IdentityOrganisation // Of a person each.
	}{
		"the user before a membership": {user, organisation + `'12' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{navy, yale}}},
		"the user before a name":       {user, organisation + `'7' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{navy}}},
		"organisations by id":          {organisation + `'7' FOR UPDATE`, organisation + `'12' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{navy, yale}}},
		"organisations that are left":  {organisation + `'7' FOR UPDATE`, organisation + `'12' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{yale}}},
		"organisations of two people in opposite order": {
			organisation + `'7' FOR UPDATE`, organisation + `'12' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{navy, yale}, {yale, navy}},
		},
		"new organisations before those": {
			organisation + `'7' FOR UPDATE`, organisation + `'12' FOR UPDATE NOWAIT`, [][]db.IdentityOrganisation{{eckert, navy, yale}, {yale, navy, eckert}},
		},
		"the list of admins before the user": {`LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`, user + ` NOWAIT`, [][]db.IdentityOrganisation{{navy}}},
	} {
		t.Run(name, func(t *testing.T) {
			deletePeople(t, d)
			early := grace()
			early.Organisations = early.Organisations[:1]
			synchronise(t, d, early)
			people := []db.Identity{grace(), grace()}
			people[1].Subject, people[1].Email = "18", "ada@example.com"
			for _, identity := range people {
				synchronise(t, d, identity)
			}
			tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
			check(t, err)
			defer func() { _ = tx.Rollback() }()
			_, err = tx.ExecContext(t.Context(), test.first)
			check(t, err)
			done := make(chan error, len(test.syncs))
			for n, organisations := range test.syncs {
				changed := people[n]
				changed.Organisations, changed.Admin = organisations, ptr(true)
				go func() {
					_, err := d.SyncIdentity(context.Background(), changed)
					done <- err
				}()
			}
			waiting(t, d, len(test.syncs))
			if _, err = tx.ExecContext(t.Context(), test.second); err != nil {
				t.Errorf("a sync waits for the first lock while it holds the second one: %v", err)
			}
			_ = tx.Commit()
			for range test.syncs {
				check(t, <-done)
			}
			var deadlocks int
			check(t, dbtest.SQL(t, d).QueryRowContext(t.Context(),
				`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks))
			if deadlocks > 0 {
				t.Errorf("%d deadlocks", deadlocks)
			}
		})
	}
}

// TestUsePasswordLink_LocksInTheOrderOfOthers does so with the link of a user.
func TestUsePasswordLink_LocksInTheOrderOfOthers(t *testing.T) {
	d := patient(t)
	ada := newUser(t, d, "ada@example.com", "user")
	_, err := d.CreatePasswordLink(t.Context(), db.PasswordLink{UserID: ada.ID, TokenHash: []byte("link"), ExpiresAt: noon})
	check(t, err)
	tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`) // As for a change of a role.
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- d.UsePasswordLink(context.Background(), []byte("link"), "new", noon.Add(-time.Hour)) }()
	waiting(t, d, 1)
	if _, err = tx.ExecContext(t.Context(), `SELECT FROM users FOR UPDATE NOWAIT`); err != nil {
		t.Errorf("it waits for the table while it holds the row: %v", err)
	}
	_ = tx.Commit()
	check(t, <-done)
}
