package db_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// deletePeople deletes all users and organisations, with what is theirs.
func deletePeople(t *testing.T, d *db.DB) {
	t.Helper()
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(), `TRUNCATE users, organisations CASCADE`)
	check(t, err)
}

// TestSyncIdentity_LinksToAProvenEmailOnly has a person log in whose email an account has already, which got it in
// each of the ways that there are.
func TestSyncIdentity_LinksToAProvenEmailOnly(t *testing.T) {
	const email = "boss@corp.example"
	other := func(email string) db.Identity {
		return db.Identity{Provider: "eclipanel", Subject: "66", Email: email}
	}
	verified := func() db.Identity {
		identity := other(email)
		identity.LinkEmail = true
		return identity
	}
	changeEmail := func(t *testing.T, d *db.DB, user db.User, email string) {
		t.Helper()
		_, err := d.ChangeEmail(t.Context(), proof(user, newSession(t, d, user, 0, "home")), email)
		check(t, err)
	}
	setEmail := func(t *testing.T, d *db.DB, user db.User) {
		t.Helper()
		_, err := d.UpdateUser(t.Context(), user.ID, db.UserPatch{Email: ptr(email)})
		check(t, err)
	}
	passedOn := errors.New("the email has a new account")
	d := dbtest.New(t)
	for name, test := range map[string]struct {
		take func(t *testing.T, d *db.DB)
		want error
	}{
		"by a change of their own": {func(t *testing.T, d *db.DB) {
			changeEmail(t, d, newUser(t, d, "eve@example.com", "user"), email)
		}, db.ErrEmailTaken},
		"by a change of another proven one": {func(t *testing.T, d *db.DB) {
			eve := newUser(t, d, "eve@example.com", "user")
			setEmail(t, d, eve)
			changeEmail(t, d, eve, "eve@example.org")
			changeEmail(t, d, eve, strings.ToUpper(email))
		}, db.ErrEmailTaken},
		"at a provider that verifies none": {func(t *testing.T, d *db.DB) {
			synchronise(t, d, other(email))
		}, passedOn},
		"by a change at such a provider": {func(t *testing.T, d *db.DB) {
			synchronise(t, d, other("eve@example.com"))
			synchronise(t, d, other(email))
		}, passedOn},
		"by a change at a provider that verified it before": {func(t *testing.T, d *db.DB) {
			synchronise(t, d, verified())
			synchronise(t, d, other("eve@example.com"))
			synchronise(t, d, other(email))
		}, passedOn},
		"by an admin who made the account": {func(t *testing.T, d *db.DB) {
			newUser(t, d, email, "user")
		}, nil},
		"by the first admin": {func(t *testing.T, d *db.DB) {
			_, err := d.CreateFirstAdmin(t.Context(), email, "hash")
			check(t, err)
		}, nil},
		"by an admin who made it, in another case": {func(t *testing.T, d *db.DB) {
			changeEmail(t, d, newUser(t, d, email, "user"), strings.ToUpper(email))
		}, nil},
		"by an admin's change": {func(t *testing.T, d *db.DB) {
			setEmail(t, d, newUser(t, d, "eve@example.com", "user"))
		}, nil},
		"by themselves, and an admin sets it again": {func(t *testing.T, d *db.DB) {
			eve := newUser(t, d, "eve@example.com", "user")
			changeEmail(t, d, eve, email)
			setEmail(t, d, eve)
		}, nil},
		"at a provider that verifies it": {func(t *testing.T, d *db.DB) {
			synchronise(t, d, verified())
		}, nil},
		"at a provider that verifies it later": {func(t *testing.T, d *db.DB) {
			synchronise(t, d, other(email))
			synchronise(t, d, verified())
			synchronise(t, d, other(email))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			deletePeople(t, d)
			test.take(t, d)
			holder, err := d.UserByEmail(t.Context(), email)
			check(t, err)
			boss, err := d.SyncIdentity(t.Context(), db.Identity{
				Provider: "company", Subject: "1", Email: email, LinkEmail: true, Admin: ptr(true),
			})
			if errors.Is(test.want, passedOn) {
				check(t, err)
				if boss.ID == holder.ID || boss.Email != email {
					t.Errorf("made %+v", boss)
				}
				for range 2 { // Before and after the provider says it again.
					after, err := d.UserByID(t.Context(), holder.ID)
					if check(t, err); after.Email != "66@eclipanel.invalid" || after.Role != holder.Role {
						t.Errorf("the account is %+v, was %+v", after, holder)
					}
					synchronise(t, d, other(email))
				}
				return
			}
			wantErr(t, err, test.want)
			if err == nil && boss.ID != holder.ID {
				t.Errorf("linked to %+v, want %+v", boss, holder)
			}
			if after, err := d.UserByID(t.Context(), holder.ID); err != nil || test.want != nil && after != holder || after.PasswordHash != holder.PasswordHash {
				t.Errorf("the account is %+v, was %+v (%v)", after, holder, err)
			}
		})
	}
}

// TestSyncIdentity_SeveralProvidersOfAnAccountAgree lets a person log in at two providers by turns, which say
// different things of the role and the email. The first logins decide; later ones write nothing.
func TestSyncIdentity_SeveralProvidersOfAnAccountAgree(t *testing.T) {
	const email, other = "boss@corp.example", "Boss@example.org"
	d := dbtest.New(t)
	for name, test := range map[string]struct {
		role            string // Before the first login.
		first, second   *bool
		emails          [2]string
		wantRole, email string
	}{
		"an admin at the first one":         {"user", ptr(true), ptr(false), [2]string{email, email}, "admin", email},
		"an admin at the second one":        {"user", ptr(false), ptr(true), [2]string{email, email}, "admin", email},
		"an admin at the one that decides":  {"user", nil, ptr(true), [2]string{email, email}, "admin", email},
		"an admin at none":                  {"admin", ptr(false), ptr(false), [2]string{email, email}, "user", email},
		"none at the only one that decides": {"admin", nil, ptr(false), [2]string{email, email}, "user", email},
		"no provider decides":               {"admin", nil, nil, [2]string{email, email}, "admin", email},
		"another email at the second one":   {"user", nil, nil, [2]string{email, other}, "user", email},
		"another email at the first one":    {"user", nil, nil, [2]string{other, email}, "user", other},
		"another case at the second one":    {"user", nil, nil, [2]string{email, strings.ToUpper(email)}, "user", email},
		"no email at the first one":         {"user", nil, nil, [2]string{"", other}, "user", other},
		"no email at the second one":        {"user", nil, nil, [2]string{email, ""}, "user", email},
	} {
		t.Run(name, func(t *testing.T) {
			deletePeople(t, d)
			local := newUser(t, d, email, test.role)
			identities := make([]db.Identity, 2)
			for n, says := range []*bool{test.first, test.second} {
				provider := []string{"zebra", "company"}[n] // Not in the order of the alphabet.
				identities[n] = db.Identity{Provider: provider, Subject: "1", Email: email, LinkEmail: true, Admin: says}
				if user := synchronise(t, d, identities[n]); user.ID != local.ID {
					t.Fatalf("%s is linked to %+v", provider, user)
				}
				identities[n].Email = test.emails[n]
			}
			for _, identity := range identities {
				synchronise(t, d, identity)
			}
			before := versions(t, dbtest.SQL(t, d))
			for n := range 4 {
				user := synchronise(t, d, identities[n%2])
				if user.ID != local.ID || user.Role != test.wantRole || user.Email != test.email {
					t.Errorf("login %d makes %+v, want %s with %s", n, user, test.wantRole, test.email)
				}
			}
			if after := versions(t, dbtest.SQL(t, d)); after != before {
				t.Errorf("logins by turns write rows: %s, before %s", after, before)
			}
		})
	}
}

// TestSyncIdentity_ARoleThatAnAdminSetsLasts until a provider says otherwise at a login. What one has said that the
// person does not use any more is forgotten.
func TestSyncIdentity_ARoleThatAnAdminSetsLasts(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	former := db.Identity{Provider: "former", Subject: "1", Email: "ada@example.com", LinkEmail: true, Admin: ptr(true)}
	current := db.Identity{Provider: "current", Subject: "1", Email: "ada@example.com", LinkEmail: true, Admin: ptr(false)}
	silent := db.Identity{Provider: "silent", Subject: "1", Email: "ada@example.com", LinkEmail: true}
	user := synchronise(t, d, former)
	for _, identity := range []db.Identity{current, silent} {
		if again := synchronise(t, d, identity); again.ID != user.ID || again.Role != "admin" {
			t.Fatalf("%s makes %+v", identity.Provider, again)
		}
	}
	_, err := d.UpdateUser(t.Context(), user.ID, db.UserPatch{Role: ptr("user")})
	check(t, err)
	for _, identity := range []db.Identity{silent, current, silent} {
		if again := synchronise(t, d, identity); again.Role != "user" {
			t.Errorf("%s makes %+v", identity.Provider, again)
		}
	}
	if again := synchronise(t, d, former); again.Role != "admin" {
		t.Errorf("the provider that says so makes %+v", again)
	}
}

// TestForgetRolesExcept_KeepsThoseThatSomebodyElseGave has a provider stop to decide that has made admins.
func TestForgetRolesExcept_KeepsThoseThatSomebodyElseGave(t *testing.T) {
	const email = "ada@example.com"
	d := dbtest.New(t)
	said := func(provider string, admin *bool) {
		t.Helper()
		synchronise(t, d, db.Identity{Provider: provider, Subject: "1", Email: email, LinkEmail: true, Admin: admin})
	}
	for name, test := range map[string]struct {
		local, hand bool  // Has a password; an admin has set the role.
		current     *bool // What the provider says that decides still.
		role        string
	}{
		"nobody else":                  {false, false, nil, "user"},
		"another says no":              {false, false, ptr(false), "user"},
		"another says no, of a local":  {true, false, ptr(false), "user"},
		"another says so":              {false, false, ptr(true), "admin"},
		"maybe an admin":               {true, false, nil, "admin"},
		"an admin":                     {false, true, nil, "admin"},
		"an admin, and another before": {false, true, ptr(false), "admin"},
	} {
		t.Run(name, func(t *testing.T) {
			deletePeople(t, d)
			newUser(t, d, "root@example.com", "admin")
			if test.local {
				newUser(t, d, email, "admin")
			}
			said("former", ptr(true))
			said("current", test.current)
			user, err := d.UserByEmail(t.Context(), email)
			check(t, err)
			if test.hand {
				_, err := d.UpdateUser(t.Context(), user.ID, db.UserPatch{Role: ptr("admin")})
				check(t, err)
			}
			check(t, d.ForgetRolesExcept(t.Context(), []string{"current"}))
			if user, err = d.UserByEmail(t.Context(), email); err != nil || user.Role != test.role {
				t.Errorf("%+v, %v", user, err)
			}
			before := versions(t, dbtest.SQL(t, d))
			check(t, d.ForgetRolesExcept(t.Context(), []string{"current"}))
			if !test.hand && test.current != nil {
				said("current", test.current)
			}
			if after := versions(t, dbtest.SQL(t, d)); after != before {
				t.Errorf("written again: %s, before %s", after, before)
			}
		})
	}
	deletePeople(t, d)
	said("former", ptr(true))
	before := versions(t, dbtest.SQL(t, d))
	wantErr(t, d.ForgetRolesExcept(t.Context(), nil), db.ErrLastAdmin)
	if after := versions(t, dbtest.SQL(t, d)); after != before {
		t.Error("the last admin's role was forgotten")
	}
}

// TestEmails_BelowInvalidAreNobodysOwn tries to give an account the email that one of a provider is to have.
func TestEmails_BelowInvalidAreNobodysOwn(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	of := proof(ada, newSession(t, d, ada, 0, "home"))
	for _, email := range []string{"17@eclipanel.invalid", "17@ECLIPANEL.Invalid", "ada@invalid"} {
		for way, give := range map[string]func() error{
			"a new account":   func() error { _, err := d.CreateUser(t.Context(), email, "hash", "user"); return err },
			"the first admin": func() error { _, err := d.CreateFirstAdmin(t.Context(), email, "hash"); return err },
			"an admin's change": func() error {
				_, err := d.UpdateUser(t.Context(), ada.ID, db.UserPatch{Email: &email})
				return err
			},
			"a change of one's own": func() error { _, err := d.ChangeEmail(t.Context(), of, email); return err },
		} {
			if err := give(); !errors.Is(err, db.ErrPlaceholder) {
				t.Errorf("%s by %s: %v", email, way, err)
			}
		}
	}
	nameless := grace()
	nameless.Email = ""
	if user := synchronise(t, d, nameless); user.Email != "17@eclipanel.invalid" {
		t.Errorf("made %+v", user)
	}
	_, err := d.ChangeEmail(t.Context(), of, "ada@invalid.example.com")
	check(t, err)
}

// TestSyncIdentity_IsAChangeOfTheProvider reads who did what a login at a provider changes.
func TestSyncIdentity_IsAChangeOfTheProvider(t *testing.T) {
	d := dbtest.New(t)
	ctx, mine := asSomebody(t)
	sync := func(identity db.Identity) {
		t.Helper()
		_, err := d.SyncIdentity(ctx, identity)
		check(t, err)
	}
	sync(grace())
	changed := grace()
	changed.Email, changed.Admin, changed.Organisations = "hopper@example.com", ptr(true), changed.Organisations[:1]
	changed.Organisations[0].Name = "US Navy"
	sync(changed)
	wantTrail(t, d, mine)
	filter := db.AuditFilter{ActorKind: db.ActorProvider, ActorID: "eclipanel"}
	wantTrail(t, d, filter, "user.create", "identity.create", "organisation.create", "organisation.create", "member.create", "member.create",
		"user.update", "identity.update", "organisation.update", "member.delete")
	entries, err := d.Audit(t.Context(), filter, db.Page[db.AuditPosition]{Limit: 1})
	check(t, err)
	if len(entries) != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	if e := entries[0]; e.ActorName != "" || e.ActorAdmin || e.Address == nil || *e.Address != "fe80::1" {
		t.Errorf("the actor is %+v", e)
	}
}
