package db_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// trail returns the actions of all entries that match a filter, oldest first.
func trail(t *testing.T, d *db.DB, filter db.AuditFilter) []string {
	t.Helper()
	entries, err := d.Audit(t.Context(), filter, db.Page[db.AuditPosition]{})
	if err != nil {
		t.Fatal(err)
	}
	actions := []string{}
	for _, entry := range entries {
		actions = append(actions, entry.Action)
	}
	slices.Reverse(actions)
	return actions
}

func wantTrail(t *testing.T, d *db.DB, filter db.AuditFilter, want ...string) {
	t.Helper()
	if got := trail(t, d, filter); !slices.Equal(got, want) {
		t.Errorf("the trail of %+v is %q, want %q", filter, got, want)
	}
}

// asSomebody returns a context with an actor whose entries no other has.
func asSomebody(t *testing.T) (context.Context, db.AuditFilter) {
	t.Helper()
	actor := db.Actor{Kind: db.ActorUser, ID: "7", Name: `7's "\ name`, Address: netip.MustParseAddr("fe80::1%eth0")}
	return db.WithActor(t.Context(), actor), db.AuditFilter{ActorKind: actor.Kind, ActorID: actor.ID}
}

// TestAudit_FormerOwnersSeeWhereDevicesWent deletes a user whose devices go to another.
func TestAudit_FormerOwnersSeeWhereDevicesWent(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	ada, grace := newUser(t, d, "ada@example.com", "user"), newUser(t, d, "grace@example.com", "user")
	device, err := d.CreateDevice(t.Context(), db.NewDevice{Name: "home", Kind: db.KindClient, OwnerID: &ada.ID, Approved: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, mine := asSomebody(t)
	if err := d.DeleteUser(ctx, ada.ID, db.DevicesOf{MoveTo: &grace.ID}); err != nil {
		t.Fatal(err)
	}
	wantTrail(t, d, mine, "device.transfer", "device.release", "user.delete")
	wantTrail(t, d, db.AuditFilter{UserID: &grace.ID}, "user.create", "device.transfer")
	wantTrail(t, d, db.AuditFilter{UserID: &ada.ID}, "user.create", "device.create", "device.release", "user.delete")
	entries, err := d.Audit(t.Context(), db.AuditFilter{TargetKind: "device", TargetID: device.ID.String(), Action: "device.release"}, db.Page[db.AuditPosition]{})
	if err != nil || len(entries) != 1 {
		t.Fatalf("%+v, %v", entries, err)
	}
	e := entries[0]
	if want := fmt.Sprintf(`{"ownerId": [%d, %d]}`, ada.ID, grace.ID); string(e.Changes) != want || e.TargetName != "home" || e.ActorName != `7's "\ name` || *e.Address != "fe80::1" {
		t.Errorf("%+v with changes %s, want %s", e, e.Changes, want)
	}
}

// TestAudit_SuspensionsSayHowManySessionsEnded ends sessions of all kinds.
func TestAudit_SuspensionsSayHowManySessionsEnded(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "root@example.com", "admin")
	ada := newUser(t, d, "ada@example.com", "user")
	login := func(expires time.Time) {
		t.Helper()
		session := db.Session{ID: uuid.New(), UserID: ada.ID, ExpiresAt: expires}
		if err := d.CreateSession(t.Context(), session, ada.PasswordHash, []byte("home"), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, expires := range []time.Duration{time.Hour, time.Hour, -time.Hour} {
		login(time.Now().Add(expires))
	}
	ctx, mine := asSomebody(t)
	if _, err := d.UpdateUser(ctx, ada.ID, db.UserPatch{Suspended: new(true)}); err != nil {
		t.Fatal(err)
	}
	wantTrail(t, d, mine, "user.suspend", "session.end")
	mine.Action = "session"
	entries, err := d.Audit(t.Context(), mine, db.Page[db.AuditPosition]{})
	if err != nil || len(entries) != 1 || entries[0].Count != 2 || entries[0].TargetName != ada.Email {
		t.Errorf("%+v, %v", entries, err)
	}
	if _, err := d.UpdateUser(ctx, ada.ID, db.UserPatch{Suspended: new(false)}); err != nil {
		t.Fatal(err)
	}
	login(time.Now().Add(time.Hour))
	if err := d.DeleteUser(ctx, ada.ID, db.DevicesOf{}); err != nil {
		t.Fatal(err)
	}
	mine.Action = ""
	wantTrail(t, d, mine, "user.suspend", "session.end", "user.restore", "user.delete")
}

// TestAudit_NothingIsLeftOfWhatFailed rolls changes back.
func TestAudit_NothingIsLeftOfWhatFailed(t *testing.T) {
	d := dbtest.New(t)
	root := newUser(t, d, "root@example.com", "admin")
	ada := newUser(t, d, "ada@example.com", "user")
	ctx, mine := asSomebody(t)
	if _, err := d.UpdateUser(ctx, root.ID, db.UserPatch{Suspended: new(true)}); !errors.Is(err, db.ErrLastAdmin) {
		t.Error(err)
	}
	if _, err := d.UpdateUser(ctx, ada.ID, db.UserPatch{Email: &root.Email}); !errors.Is(err, db.ErrConflict) {
		t.Error(err)
	}
	if _, err := d.UpdateUser(ctx, ada.ID, db.UserPatch{Email: &ada.Email, Role: &ada.Role}); err != nil { // The same.
		t.Error(err)
	}
	if _, err := d.CreateUser(ctx, "ADA@example.com", "", "user"); !errors.Is(err, db.ErrConflict) {
		t.Error(err)
	}
	wantTrail(t, d, mine)
	// The actor is that of a transaction, and not of its connection.
	for range 20 {
		if _, err := d.UpdateSettings(t.Context(), db.SettingsPatch{TunnelsEnabled: new(false)}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.UpdateSettings(ctx, db.SettingsPatch{TunnelsEnabled: new(true)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(trail(t, d, db.AuditFilter{ActorKind: db.ActorUnknown, Action: "settings"})); n != 20 {
		t.Errorf("%d entries of nobody", n)
	}
	if n := len(trail(t, d, mine)); n != 20 {
		t.Errorf("%d entries of the actor", n)
	}
}

// TestAudit_PresenceIsNoChange does what devices and the panel do all the time.
func TestAudit_PresenceIsNoChange(t *testing.T) {
	d := dbtest.New(t)
	root := newUser(t, d, "root@example.com", "admin")
	var devices []db.Device
	for _, kind := range []string{db.KindClient, db.KindServer} {
		device, err := d.CreateDevice(t.Context(), db.NewDevice{
			Name: kind, Kind: kind, OwnerID: &root.ID, Approved: true, PublicHost: "play.example.com", PortFirst: 20000, PortLast: 20100,
		})
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, device)
	}
	made, err := d.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: devices[0].ID, ServerID: &devices[1].ID, Protocols: []string{"tcp"}, LocalHost: "127.0.0.1", LocalPort: 1, ProxyProtocol: "none", UDPIdleSeconds: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := d.CreateSession(t.Context(), db.Session{ID: uuid.New(), UserID: root.ID, ExpiresAt: now.Add(-time.Hour)}, root.PasswordHash, []byte("home"), now); err != nil {
		t.Fatal(err)
	}
	before := trail(t, d, db.AuditFilter{})
	pending := db.NewDevice{Name: "pending", Kind: db.KindClient, UserCode: "BCDF-2345", CodeHash: []byte("code"), CreatedAt: now, ExpiresAt: now.Add(-time.Hour)}
	if _, err := d.CreateDevice(t.Context(), pending); err != nil {
		t.Fatal(err)
	}
	if done, _, err := d.Maintain(t.Context(), db.Maintenance{EnrollmentsBefore: now, ExpiredBefore: now}); err != nil || done.Enrollments != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	replica := uuid.New()
	if err := d.RenewLease(t.Context(), replica, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, device := range devices {
		hello := db.Hello{TokenVersion: 1, ReplicaID: replica, AgentVersion: "1", Platform: "linux/amd64"}
		if device.Kind == db.KindServer {
			hello.RelayPort, hello.Fingerprint = 7443, "00"
		}
		generation, err := d.Connect(t.Context(), device.ID, hello)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SaveReports(t.Context(), device.ID, device.Kind, []db.Report{{AllocationID: made[0].ID, State: db.StateReady}}); err != nil {
			t.Fatal(err)
		}
		if err := d.SavePlayers(t.Context(), device.ID, 7); err != nil {
			t.Fatal(err)
		}
		if err := d.Disconnect(t.Context(), device.ID, generation, ""); err != nil {
			t.Fatal(err)
		}
	}
	if after := trail(t, d, db.AuditFilter{}); !slices.Equal(after, before) {
		t.Errorf("presence left %q", after[len(before):])
	}
}

// TestAudit_RefusalsDoNotFillTheTrail refuses logins from many sources, for an account and for none.
func TestAudit_RefusalsDoNotFillTheTrail(t *testing.T) {
	d := dbtest.New(t)
	ada := newUser(t, d, "ada@example.com", "user")
	refuse := func(i int, user *int64) {
		t.Helper()
		address := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		ctx := db.WithSource(db.WithActor(t.Context(), db.Actor{Kind: db.ActorAnonymous, Address: address}), netip.PrefixFrom(address, 32))
		if err := d.RecordRefusal(ctx, db.Refusal{Action: "session.refuse", TargetKind: "user", UserID: user}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 250 {
		refuse(i, nil)
		refuse(i%120, &ada.ID)
	}
	// A test that begins in one hour and ends in the next finds more entries.
	count := func(condition string) (entries, attempts int) {
		t.Helper()
		row := dbtest.SQL(t, d).QueryRowContext(t.Context(), `SELECT count(*), coalesce(sum(count), 0) FROM audit_log WHERE action = 'session.refuse' AND `+condition)
		if err := row.Scan(&entries, &attempts); err != nil {
			t.Fatal(err)
		}
		return entries, attempts
	}
	if entries, attempts := count(`true`); entries > 4*101 || attempts != 500 {
		t.Errorf("%d entries of %d attempts", entries, attempts)
	}
	if entries, _ := count(`user_id IS NOT NULL`); entries < 100 {
		t.Errorf("those for no account have displaced those for one: %d are left", entries)
	}
}

// TestAudit_PrunesOldEntriesOnly prunes a trail of two ages.
func TestAudit_PrunesOldEntriesOnly(t *testing.T) {
	d := dbtest.New(t)
	newUser(t, d, "ada@example.com", "user")
	fillTrail(t, d, 6000, time.Now().Add(-48*time.Hour))
	for _, want := range []int64{5000, 1000, 0} {
		if n, err := d.PruneAudit(t.Context(), time.Now().Add(-24*time.Hour)); err != nil || n != want {
			t.Errorf("pruned %d, want %d (%v)", n, want, err)
		}
	}
	wantTrail(t, d, db.AuditFilter{}, "user.create")
}

// fillTrail adds n entries of the hour before a time, of 100 users, organisations, actors, targets and
// actions. Those of number 200 are the oldest tenth.
func fillTrail(t *testing.T, d *db.DB, n int, end time.Time) {
	t.Helper()
	sql := dbtest.SQL(t, d)
	_, err := sql.ExecContext(t.Context(),
		`INSERT INTO audit_log (at, actor_kind, actor_id, actor_name, action, target_kind, target_id, target_name, user_id, organisation_id)
		SELECT $2::timestamptz - n * interval '1 hour' / $1, 'user', k, 'ada', 'kind' || k || '.update', 'device', k, 'home', k::bigint, k::bigint
		FROM (SELECT n, CASE WHEN n > $1 * 9 / 10 THEN 200 ELSE n % 100 END::text AS k FROM generate_series(0, $1::int - 1) n) AS numbers`, n, end)
	if err == nil {
		_, err = sql.ExecContext(t.Context(), `ANALYZE audit_log`)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAudit_PagesByAnIndex reads pages with each filter, of which each reads one index at its position and
// hardly another row.
func TestAudit_PagesByAnIndex(t *testing.T) {
	d := dbtest.New(t)
	end := time.Now()
	fillTrail(t, d, 50_000, end)
	sql := dbtest.SQL(t, d)
	id, old := int64(7), int64(200)
	middle := end.Add(-30 * time.Minute)
	for name, filter := range map[string]db.AuditFilter{
		"all":          {},
		"user":         {UserID: &id},
		"organisation": {OrganisationID: &id},
		"actor":        {ActorKind: "user", ActorID: "7"},
		"target":       {TargetKind: "device", TargetID: "7"},
		"action":       {Action: "kind7.update"},
		"kind":         {Action: "kind7"},
		"old user":     {UserID: &old},
		"old actor":    {ActorKind: "user", ActorID: "200"},
		"old action":   {Action: "kind200.update"},
		"old kind":     {Action: "kind200"},
		"user, from":   {UserID: &id, From: end.Add(-5 * time.Minute)},
		"user, to":     {UserID: &id, To: end.Add(-50 * time.Minute)},
		"none":         {Action: "key"},
		"from":         {From: end.Add(-time.Minute)},
		"to":           {To: end.Add(-59 * time.Minute)},
	} {
		for position, after := range map[string]*db.AuditPosition{"first": nil, "later": {At: middle, ID: 1}} {
			query, args := db.AuditQuery(filter, db.Page[db.AuditPosition]{Limit: 100, After: after})
			got := plan(t, sql, query, args...)
			read := 0
			for _, rows := range regexp.MustCompile(`rows=(\d+)`).FindAllStringSubmatch(got, -1) {
				n, err := strconv.Atoi(rows[1])
				if err != nil {
					t.Fatal(err)
				}
				read = max(read, n)
			}
			if strings.Contains(got, "Seq Scan") || strings.Contains(got, "Rows Removed") || read > 100 {
				t.Errorf("%s, %s page:\n%s", name, position, got)
			}
		}
	}
}
