package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// patient returns a database whose statements may wait for each other for long.
func patient(t *testing.T) *db.DB {
	t.Helper()
	d := dbtest.New(t)
	d.SetStatementTimeout(6 * await.Timeout)
	return d
}

// waiting waits until so many transactions wait for a lock.
func waiting(t *testing.T, d *db.DB, count int) {
	t.Helper()
	sql := dbtest.SQL(t, d)
	await.Until(t, "transactions that wait", func() bool {
		var n int
		row := sql.QueryRowContext(t.Context(),
			`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		return row.Scan(&n) == nil && n == count
	})
}

// TestOrganisations_OneOwnerStays lets two owners end each other's ownership, and their own, at the
// same moment, in every way.
func TestOrganisations_OneOwnerStays(t *testing.T) {
	suspended := true
	for name, c := range map[string]struct {
		other bool // Each ends that of the other one.
		end   func(d *db.DB, guild, by, user int64) error
	}{
		"leave": {false, func(d *db.DB, guild, by, user int64) error {
			return d.RemoveMember(context.Background(), db.Scope{UserID: by}, guild, user)
		}},
		"step down": {false, func(d *db.DB, guild, by, user int64) error {
			_, err := d.UpdateMember(context.Background(), db.Scope{UserID: by}, guild, user, db.RoleMember)
			return err
		}},
		"suspended": {true, func(d *db.DB, _, _, user int64) error {
			_, err := d.UpdateUser(context.Background(), user, db.UserPatch{Suspended: &suspended})
			return err
		}},
		"deleted": {true, func(d *db.DB, _, _, user int64) error {
			return d.DeleteUser(context.Background(), user, db.DevicesOf{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := patient(t)
			newUser(t, d, "root@example.com", "admin")
			owners := []int64{createUser(t, d, "one@example.com"), createUser(t, d, "two@example.com")}
			guild := dbtest.Organisation(t, d, "guild")
			dbtest.Member(t, d, guild, createUser(t, d, "member@example.com"), db.RoleMember)
			for _, owner := range owners {
				dbtest.Member(t, d, guild, owner, db.RoleOwner)
			}
			holder, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
			check(t, err)
			_, err = holder.ExecContext(t.Context(), `SELECT FROM organisations FOR UPDATE`)
			check(t, err)
			results := make([]error, len(owners))
			var group sync.WaitGroup
			for i, owner := range owners {
				group.Go(func() {
					if c.other {
						results[i] = c.end(d, guild, owner, owners[1-i])
					} else {
						results[i] = c.end(d, guild, owner, owner)
					}
				})
			}
			waiting(t, d, len(owners))
			check(t, holder.Commit())
			group.Wait()
			if (results[0] == nil) == (results[1] == nil) || !errors.Is(errors.Join(results...), db.ErrLastOwner) {
				t.Errorf("both ended, or neither: %v", results)
			}
		})
	}
}

// TestOrganisations_AnOwnerWhoIsBeingDeletedIsNone: who becomes the only owner cannot be deleted
// meanwhile.
func TestOrganisations_AnOwnerWhoIsBeingDeletedIsNone(t *testing.T) {
	d := patient(t)
	newUser(t, d, "root@example.com", "admin")
	owner, newOwner := createUser(t, d, "owner@example.com"), createUser(t, d, "new-owner@example.com")
	guild := dbtest.Organisation(t, d, "guild")
	dbtest.Member(t, d, guild, owner, db.RoleOwner)
	dbtest.Member(t, d, guild, newOwner, db.RoleMember)
	holder, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	for _, statement := range []string{
		`SELECT FROM organisations FOR NO KEY UPDATE`,
		`UPDATE organisation_members SET role = 'owner' WHERE role = 'member'`,
		`DELETE FROM organisation_members WHERE user_id = (SELECT id FROM users WHERE email = 'owner@example.com')`,
	} {
		_, err = holder.ExecContext(t.Context(), statement)
		check(t, err)
	}
	var group sync.WaitGroup
	var deleted error
	group.Go(func() { deleted = d.DeleteUser(context.Background(), newOwner, db.DevicesOf{}) })
	waiting(t, d, 1)
	check(t, holder.Commit())
	group.Wait()
	if !errors.Is(deleted, db.ErrLastOwner) {
		t.Errorf("the organisation has no owner: %v", deleted)
	}
}

func TestInvitation_MakesOneMember(t *testing.T) {
	d := patient(t)
	owner := createUser(t, d, "owner@example.com")
	guild, err := d.CreateOrganisation(t.Context(), "guild", owner, true)
	check(t, err)
	_, err = d.CreateInvitation(t.Context(), db.Scope{UserID: owner}, db.NewInvitation{
		OrganisationID: guild.ID, Role: db.RoleMember, TokenHash: []byte("hash"), CreatedAt: noon, ExpiresAt: noon.Add(time.Hour),
	})
	check(t, err)
	results := make([]error, 8)
	var group sync.WaitGroup
	for i := range results {
		user := createUser(t, d, fmt.Sprintf("user%d@example.com", i))
		group.Go(func() { _, results[i] = d.AcceptInvitation(t.Context(), []byte("hash"), user, noon) })
	}
	group.Wait()
	members, err := d.Members(t.Context(), db.Scope{UserID: owner}, guild.ID, db.Page[int64]{})
	check(t, err)
	accepted := 0
	for _, err := range results {
		if err == nil {
			accepted++
		} else if !errors.Is(err, db.ErrNotFound) {
			t.Error(err)
		}
	}
	if accepted != 1 || len(members) != 2 {
		t.Errorf("%d accepted it, and the members are %+v", accepted, members)
	}
}

// TestOrganisations_AreCreatedUpToALimit by one user at the same time.
func TestOrganisations_AreCreatedUpToALimit(t *testing.T) {
	d := patient(t)
	owner := createUser(t, d, "owner@example.com")
	for range db.MaxOwned - 2 {
		_, err := d.CreateOrganisation(t.Context(), "guild", owner, true)
		check(t, err)
	}
	results := make([]error, 6)
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() { _, results[i] = d.CreateOrganisation(t.Context(), "guild", owner, true) })
	}
	group.Wait()
	created := 0
	for _, err := range results {
		if err == nil {
			created++
		} else if !errors.Is(err, db.ErrTooMany) {
			t.Error(err)
		}
	}
	if created != 2 {
		t.Errorf("created %d more than %d", created, db.MaxOwned-2)
	}
}

// TestUpdateDevice_NotifiesTheTunnelServersOfAnotherOwner: the rules of another organisation are in
// effect for its allocations.
func TestUpdateDevice_NotifiesTheTunnelServersOfAnotherOwner(t *testing.T) {
	d := dbtest.New(t)
	guild := dbtest.Organisation(t, d, "guild")
	owner := createUser(t, d, "owner@example.com")
	client, server := enroll(t, d, db.KindClient, &owner), enroll(t, d, db.KindServer, nil)
	_, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, &server.ID, "tcp"))
	check(t, err)
	events := listen(t, d)
	moved, err := d.UpdateDevice(t.Context(), everything, client.ID, db.DevicePatch{Owner: &db.NewOwner{OrganisationID: &guild}})
	check(t, err)
	if moved.OwnerID != nil || moved.OrganisationID == nil || *moved.OrganisationID != guild {
		t.Errorf("moved as %+v", moved)
	}
	wantEvents(t, events, "another owner", server)
}

// TestOrganisations_PageByAnIndex reads pages of 5,000 organisations and 20,000 members, of which each
// page reads the index at its own position and no other row.
func TestOrganisations_PageByAnIndex(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		`INSERT INTO users (email, password_hash, role) SELECT format('user%s@example.com', n), '', 'user' FROM generate_series(1, 20000) n`,
		`INSERT INTO organisations (name) SELECT format('Guild%s', lpad(n::text, 4, '0')) FROM generate_series(1, 5000) n`,
		`INSERT INTO organisation_members (organisation_id, user_id, role)
			SELECT o.id, u.id, 'member' FROM users u, (SELECT min(id) AS id FROM organisations) o`,
		`INSERT INTO organisation_members (organisation_id, user_id, role)
			SELECT o.id, u.id, 'owner' FROM organisations o, (SELECT min(id) AS id FROM users) u WHERE o.name <> 'Guild0001'`,
		`ANALYZE users, organisations, organisation_members`,
	} {
		_, err := sql.ExecContext(t.Context(), statement)
		check(t, err)
	}
	var user, guild int64
	check(t, sql.QueryRowContext(t.Context(), `SELECT max(id) FROM users`).Scan(&user))
	check(t, sql.QueryRowContext(t.Context(), `SELECT min(id) FROM organisations`).Scan(&guild))
	for name, c := range map[string]struct {
		query, index string
		args         []any
	}{
		"first page":      {db.AllOrganisationsQuery, "organisations_order_idx", []any{user, "", "", 0, 101, db.LastCharacter}},
		"page":            {db.AllOrganisationsQuery, "organisations_order_idx", []any{user, "", "GUILD2500", 2500, 101, db.LastCharacter}},
		"search":          {db.AllOrganisationsQuery, "organisations_order_idx", []any{user, "guild4", "", 0, 101, db.LastCharacter}},
		"own":             {db.OwnOrganisationsQuery, "organisation_members_user_id_idx", []any{user, "", "", 0, 101, db.LastCharacter}},
		"members":         {db.MembersQuery, "organisation_members_pkey", []any{guild, 0, 101}},
		"page of members": {db.MembersQuery, "organisation_members_pkey", []any{guild, user / 2, 101}},
	} {
		text := plan(t, sql, c.query, c.args...)
		if !strings.Contains(text, c.index) || strings.Contains(text, "Seq Scan") || strings.Contains(text, "Removed by Filter") ||
			c.index != "organisation_members_user_id_idx" && strings.Contains(text, "Sort") {
			t.Errorf("%s reads more than its page:\n%s", name, text)
		}
	}
}
