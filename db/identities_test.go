package db_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// grace is a person at a provider.
func grace() db.Identity {
	return db.Identity{
		Provider: "eclipanel", Subject: "17", Email: "Grace@example.com", Admin: ptr(false),
		Organisations: []db.IdentityOrganisation{{ID: "7", Name: "Navy", Role: "owner"}, {ID: "12", Name: "Yale", Role: "member"}},
	}
}

func synchronise(t *testing.T, d *db.DB, identity db.Identity) db.User {
	t.Helper()
	user, err := d.SyncIdentity(t.Context(), identity)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// memberships returns the organisations of a user as "provider/external id=name:role", in order.
func memberships(t *testing.T, sql *sql.DB, user int64) string {
	t.Helper()
	var text string
	err := sql.QueryRowContext(t.Context(),
		`SELECT coalesce(string_agg(concat(o.provider, '/', o.external_id, '=', o.name, ':', m.role), ' ' ORDER BY o.provider NULLS LAST, o.external_id), '')
		FROM organisation_members m JOIN organisations o ON o.id = m.organisation_id WHERE m.user_id = $1`, user).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// versions returns who wrote each row last that SyncIdentity writes.
func versions(t *testing.T, sql *sql.DB) string {
	t.Helper()
	var text string
	err := sql.QueryRowContext(t.Context(), `SELECT concat_ws(' ',
		(SELECT string_agg(xmin::text, ',' ORDER BY id) FROM users),
		(SELECT string_agg(xmin::text, ',' ORDER BY subject) FROM identities),
		(SELECT string_agg(xmin::text, ',' ORDER BY id) FROM organisations),
		(SELECT string_agg(xmin::text, ',' ORDER BY user_id, organisation_id) FROM organisation_members))`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSyncIdentity_FollowsTheProviderAndWritesOnlyDifferences(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	user := synchronise(t, d, grace())
	if user.Email != "Grace@example.com" || user.Role != "user" || user.PasswordHash != "" || user.Suspended {
		t.Errorf("made %+v", user)
	}
	local := dbtest.Organisation(t, d, "Local")
	dbtest.Member(t, d, local, user.ID, "owner")
	other := grace()
	other.Provider, other.Email = "corporate", ""
	other.Organisations = []db.IdentityOrganisation{{ID: "7", Name: "Seven", Role: "admin"}}
	if colleague := synchronise(t, d, other); colleague.ID == user.ID || colleague.Email != "17@corporate.invalid" {
		t.Errorf("the same subject at another provider is %+v", colleague)
	}
	if got, want := memberships(t, sql, user.ID), "eclipanel/12=Yale:member eclipanel/7=Navy:owner /=Local:owner"; got != want {
		t.Errorf("member of %s, want %s", got, want)
	}

	before := versions(t, sql)
	repeated := grace()
	repeated.Organisations = append(repeated.Organisations, db.IdentityOrganisation{ID: "7", Name: "Navy", Role: "member"})
	unsaid := grace()
	unsaid.Admin, unsaid.Organisations, unsaid.Email = nil, nil, grace().Email
	for _, same := range []db.Identity{grace(), repeated, unsaid} {
		if again := synchronise(t, d, same); again != user {
			t.Errorf("again %+v, first %+v", again, user)
		}
	}
	if after := versions(t, sql); after != before {
		t.Errorf("rows were written though nothing differs: %s, before %s", after, before)
	}

	changed := grace()
	changed.Email, changed.Admin = "hopper@example.com", ptr(true)
	changed.Organisations = []db.IdentityOrganisation{{ID: "12", Name: "Yale University", Role: "admin"}, {ID: "9", Name: "Eckert", Role: "member"}}
	promoted := synchronise(t, d, changed)
	if promoted.ID != user.ID || promoted.Email != "hopper@example.com" || promoted.Role != "admin" {
		t.Errorf("changed to %+v", promoted)
	}
	if got, want := memberships(t, sql, user.ID), "eclipanel/12=Yale University:admin eclipanel/9=Eckert:member /=Local:owner"; got != want {
		t.Errorf("member of %s, want %s", got, want)
	}
	changed.Organisations = []db.IdentityOrganisation{}
	synchronise(t, d, changed)
	if got, want := memberships(t, sql, user.ID), "/=Local:owner"; got != want {
		t.Errorf("member of %s, want %s", got, want)
	}
}

func TestSyncIdentity_NeverTakesAnAccountOverByItsEmail(t *testing.T) {
	d := dbtest.New(t)
	local, err := d.CreateUser(t.Context(), "grace@EXAMPLE.com", "hash", "admin")
	check(t, err)
	for name, change := range map[string]func(*db.Identity){
		"as it is":              func(*db.Identity) {},
		"of an admin":           func(i *db.Identity) { i.Admin = ptr(true) },
		"of another provider":   func(i *db.Identity) { i.Provider = "corporate" },
		"without organisations": func(i *db.Identity) { i.Organisations = nil },
	} {
		identity := grace()
		change(&identity)
		if _, err := d.SyncIdentity(t.Context(), identity); err == nil {
			t.Errorf("%s: it was accepted", name)
		} else {
			wantErr(t, err, db.ErrEmailTaken)
		}
	}
	if users, err := d.Users(t.Context(), "", db.Page[string]{}); err != nil || len(users) != 1 {
		t.Errorf("%d users, %v", len(users), err)
	}

	linked := grace()
	linked.LinkEmail = true
	if user := synchronise(t, d, linked); user.ID != local.ID || user.PasswordHash != "hash" || user.Role != "user" {
		t.Errorf("linked to %+v, want the account %d", user, local.ID)
	}
	// From now on by the subject, and no longer by the email.
	linked.LinkEmail, linked.Email = false, "hopper@example.com"
	if user := synchronise(t, d, linked); user.ID != local.ID || user.Email != "hopper@example.com" {
		t.Errorf("the linked account is %+v", user)
	}
}

func TestSyncIdentity_PassesAnEmailOnWithinAProvider(t *testing.T) {
	d := dbtest.New(t)
	first := synchronise(t, d, grace())
	next := grace()
	next.Subject, next.LinkEmail = "Q 18", true
	second := synchronise(t, d, next)
	if second.ID == first.ID || !strings.HasSuffix(second.Email, "@eclipanel.invalid") || strings.Contains(second.Email, " ") {
		t.Errorf("the next one with the email is %+v, the first %+v", second, first)
	}
	moved := grace()
	moved.Email = "hopper@example.com"
	synchronise(t, d, moved)
	if again := synchronise(t, d, next); again.ID != second.ID || again.Email != "Grace@example.com" {
		t.Errorf("with the email free, %+v", again)
	}
	// Back, and taken: the account keeps what it has.
	if kept := synchronise(t, d, grace()); kept.ID != first.ID || kept.Email != "hopper@example.com" {
		t.Errorf("with the email taken, %+v", kept)
	}
	// Nobody can take the place of those who have no email.
	other := grace()
	other.Subject, other.Email = "19", "20@EcliPanel.Invalid"
	if user := synchronise(t, d, other); user.Email != "19@eclipanel.invalid" {
		t.Errorf("with the placeholder of another one, %+v", user)
	}
}

func TestSyncIdentity_LeavesSuspensionHereAndRolesThere(t *testing.T) {
	d := dbtest.New(t)
	boss := grace()
	boss.Admin = ptr(true)
	user := synchronise(t, d, boss)
	_, err := d.UpdateUser(t.Context(), user.ID, db.UserPatch{Role: ptr("user")})
	wantErr(t, err, db.ErrLastAdmin) // An admin without a password can log in at the provider.
	if demoted := synchronise(t, d, grace()); demoted.Role != "user" {
		t.Errorf("the last admin stays %+v", demoted)
	}
	_, err = d.UpdateUser(t.Context(), user.ID, db.UserPatch{Role: ptr("admin")})
	check(t, err)
	if _, err := d.CreateUser(t.Context(), "local@example.com", "hash", "admin"); err != nil {
		t.Fatal(err)
	}
	_, err = d.UpdateUser(t.Context(), user.ID, db.UserPatch{Suspended: ptr(true)})
	check(t, err)
	if suspended := synchronise(t, d, boss); !suspended.Suspended || suspended.Role != "admin" {
		t.Errorf("suspended %+v", suspended)
	}
	// The only owner of a provider's organisation can be deleted, and comes back as somebody new.
	check(t, d.DeleteUser(t.Context(), user.ID, db.DevicesOf{}))
	if again := synchronise(t, d, boss); again.ID == user.ID || again.Suspended {
		t.Errorf("after the deletion %+v", again)
	}
}

func TestSyncIdentity_OfManyReplicasMakesOne(t *testing.T) {
	url := dbtest.URL(t)
	replicas := []*db.DB{dbtest.Open(t, url), dbtest.Open(t, url)}
	check(t, replicas[0].Migrate(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // Not the 3 seconds of a call on a busy machine.
	defer cancel()
	for _, replica := range replicas {
		replica.SetRequestWait(time.Minute)
	}
	const people, attempts = 3, 4
	var mutex sync.Mutex
	ids := map[string]map[int64]bool{}
	var wait sync.WaitGroup
	for n := range people * attempts {
		identity := grace() // All in the same organisations.
		identity.Subject = fmt.Sprint(n % people)
		identity.Email = identity.Subject + "@example.com"
		wait.Go(func() {
			user, err := replicas[n/people%2].SyncIdentity(ctx, identity)
			if err != nil {
				t.Errorf("person %s: %v", identity.Subject, err)
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			if ids[identity.Subject] == nil {
				ids[identity.Subject] = map[int64]bool{}
			}
			ids[identity.Subject][user.ID] = true
		})
	}
	wait.Wait()
	for subject, accounts := range ids {
		if len(accounts) != 1 {
			t.Errorf("person %s has the accounts %v", subject, accounts)
		}
	}
	var users, organisations, members int
	err := dbtest.SQL(t, replicas[0]).QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM users),
		(SELECT count(*) FROM organisations), (SELECT count(*) FROM organisation_members)`).Scan(&users, &organisations, &members)
	check(t, err)
	if users != people || organisations != 2 || members != 2*people {
		t.Errorf("%d users, %d organisations, %d memberships", users, organisations, members)
	}
}
