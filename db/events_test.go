package db_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// follower reads the log of events from where it was made.
type follower struct {
	t    *testing.T
	d    *db.DB
	last int64
}

func follow(t *testing.T, d *db.DB) *follower {
	t.Helper()
	log, err := d.EventsAfter(t.Context(), 0, 0)
	check(t, err)
	return &follower{t, d, log.Newest}
}

// next returns the new events.
func (f *follower) next() []db.LoggedEvent {
	f.t.Helper()
	log, err := f.d.EventsAfter(f.t.Context(), f.last, 10_000)
	check(f.t, err)
	for i, e := range log.Events {
		if want := f.last + int64(i) + 1; e.ID != want {
			f.t.Fatalf("event %d where %d was to come", e.ID, want)
		}
	}
	f.last = log.Newest
	return log.Events
}

// want fails unless these are the new events: a type, followed by a device or an allocation where there is one.
func (f *follower) want(what string, want ...string) []db.LoggedEvent {
	f.t.Helper()
	events := f.next()
	var got []string
	for _, e := range events {
		switch {
		case e.AllocationID != nil:
			got = append(got, fmt.Sprint(e.Type, " ", *e.AllocationID))
		case e.DeviceID != nil:
			got = append(got, e.Type+" "+e.DeviceID.String())
		default:
			got = append(got, e.Type)
		}
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		f.t.Errorf("%s: events\n\t%v, want\n\t%v", what, got, want)
	}
	return events
}

func TestEvents_EveryChangeIsOneEvent(t *testing.T) {
	d := dbtest.New(t)
	ctx := t.Context()
	owner := createUser(t, d, "ada@example.com")
	f := follow(t, d)

	pending := startEnrollment(t, d, db.KindClient)
	device := func(what string) string { return "device." + what + " " + pending.ID.String() }
	if e := f.want("enrollment", device("created"))[0]; e.UserID != nil || e.OrganisationID != nil || e.At.IsZero() {
		t.Errorf("of a device without an owner: %+v", e)
	}
	_, err := d.ApproveDevice(ctx, pending.ID, db.Approval{At: noon, OwnerID: &owner})
	check(t, err)
	approved := f.want("approval", device("updated"))[0]
	if !approved.Transferred || approved.PreviousUserID != nil || approved.UserID == nil || *approved.UserID != owner {
		t.Errorf("approval: %+v", approved)
	}
	_, err = d.NextEnrollmentToken(ctx, pending.ID)
	check(t, err)
	f.want("token")
	client := readDevice(t, d, pending.ID)
	_, err = d.UpdateDevice(ctx, everything, client.ID, db.DevicePatch{Name: ptr("other")})
	check(t, err)
	f.want("name", device("updated"))
	_, err = d.UpdateDevice(ctx, everything, client.ID, db.DevicePatch{Name: ptr("other")})
	check(t, err)
	f.want("the same name")
	_, err = d.RegenerateToken(ctx, everything, client.ID)
	check(t, err)
	f.want("new token")

	server := enroll(t, d, db.KindServer, nil)
	f.next()
	made := allocate(t, d, client.ID, server.ID)
	allocation := func(what string) string { return fmt.Sprintf("allocation.%s %d", what, made.ID) }
	if e := f.want("allocation", allocation("created"))[0]; *e.DeviceID != client.ID || e.UserID == nil || *e.UserID != owner {
		t.Errorf("allocation: %+v", e)
	}
	replica := startReplica(t, d)
	client = readDevice(t, d, client.ID)
	generation := connect(t, d, client, replica)
	f.want("client online", device("updated"), allocation("updated"))
	connect(t, d, client, replica)
	f.want("connected again")
	ready := []db.Report{{AllocationID: made.ID, State: db.StateReady}}
	check(t, d.SaveReports(ctx, client.ID, db.KindClient, ready))
	f.want("report", allocation("updated"))
	check(t, d.SaveReports(ctx, client.ID, db.KindClient, ready))
	f.want("the same report")
	check(t, d.Disconnect(ctx, client.ID, generation, ""))
	f.want("late end of an earlier connection")
	check(t, d.Disconnect(ctx, client.ID, generation+1, ""))
	f.want("client offline", device("updated"), allocation("updated"))
	connect(t, d, server, replica)
	f.want("server online", "device.updated "+server.ID.String(), allocation("updated"))
	check(t, d.SaveReports(ctx, server.ID, db.KindServer, ready))
	f.want("report of the server", allocation("updated"))
	_, err = d.UpdateDevice(ctx, everything, server.ID, db.DevicePatch{PublicHost: ptr("other.example.com")})
	check(t, err)
	f.want("host", "device.updated "+server.ID.String(), allocation("updated"))
	_, err = d.UpdateAllocation(ctx, everything, made.ID, db.AllocationPatch{Name: ptr("game")})
	check(t, err)
	f.want("name of the allocation", allocation("updated"))

	check(t, d.DeleteAllocation(ctx, everything, made.ID))
	if e := f.want("deleted", allocation("deleted"))[0]; *e.DeviceID != client.ID || e.UserID == nil || *e.UserID != owner {
		t.Errorf("deleted allocation: %+v", e)
	}
	made = allocate(t, d, client.ID, server.ID)
	f.next()
	check(t, d.DeleteDevice(ctx, everything, client.ID))
	for _, e := range f.want("device deleted", allocation("deleted"), device("deleted")) {
		if e.UserID == nil || *e.UserID != owner || *e.DeviceID != client.ID {
			t.Errorf("%s is of %v", e.Type, e.UserID)
		}
	}
}

func TestEvents_ATransferIsOneEventForBothOwners(t *testing.T) {
	d := dbtest.New(t)
	ada, organisation := createUser(t, d, "ada@example.com"), dbtest.Organisation(t, d, "org")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	made := allocate(t, d, client.ID, server.ID)
	f := follow(t, d)
	_, err := d.UpdateDevice(t.Context(), everything, client.ID, db.DevicePatch{Owner: &db.NewOwner{OrganisationID: &organisation}})
	check(t, err)
	for _, e := range f.want("transfer", "device.updated "+client.ID.String(), fmt.Sprint("allocation.updated ", made.ID)) {
		if !e.Transferred || e.UserID != nil || *e.OrganisationID != organisation || *e.PreviousUserID != ada || e.PreviousOrganisationID != nil {
			t.Errorf("transfer: %+v", e)
		}
	}
}

func TestEvents_DrainedServerIsOneEvent(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	first, second := allocate(t, d, client.ID, server.ID), allocate(t, d, client.ID, server.ID)
	connect(t, d, server, startReplica(t, d))
	f := follow(t, d)
	updated := func(ids ...int64) []string {
		events := []string{"device.updated " + server.ID.String()}
		for _, id := range ids {
			events = append(events, fmt.Sprint("allocation.updated ", id))
		}
		return events
	}
	draining, err := d.DrainServer(t.Context(), everything, server.ID, time.Hour, false)
	check(t, err)
	f.want("drain", updated(first.ID, second.ID)...)
	drained := func(id int64) {
		check(t, d.SaveDrained(t.Context(), server.ID, []db.DrainedPort{{AllocationID: id, Until: *draining.DrainUntil}}))
	}
	drained(first.ID)
	f.want("first port drained")
	drained(second.ID)
	f.want("last port drained", updated()...)
}

func TestEvents_ALapsedLeaseTakesItsDevicesOfflineOnce(t *testing.T) {
	d := dbtest.New(t)
	ctx := t.Context()
	client, other, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	made := allocate(t, d, client.ID, server.ID)
	dead, alive := startReplica(t, d), startReplica(t, d)
	connect(t, d, client, dead)
	connect(t, d, other, alive)
	f := follow(t, d)
	check(t, d.RecordLapses(ctx))
	f.want("nothing has lapsed")
	check(t, d.RenewLease(ctx, dead, 0))
	f.want("not recorded yet")
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if err := d.RecordLapses(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	both := []string{"device.updated " + client.ID.String(), fmt.Sprint("allocation.updated ", made.ID)}
	f.want("lapsed", both...)
	check(t, d.RenewLease(ctx, dead, 0))
	check(t, d.RecordLapses(ctx))
	f.want("still lapsed")
	check(t, d.RenewLease(ctx, dead, time.Minute))
	f.want("renewed", both...)
	connect(t, d, client, alive)
	f.want("from one replica to another")
	check(t, d.RenewLease(ctx, alive, 0))
	check(t, d.RecordLapses(ctx))
	if got := f.next(); len(got) != 3 {
		t.Errorf("%d events of a replica with two devices and an allocation", len(got))
	}
	connect(t, d, client, dead)
	f.want("to another after the lapse", both...)
}

// TestEvents_AReaderMissesNothing has many transactions commit at the same time, and reads meanwhile.
func TestEvents_AReaderMissesNothing(t *testing.T) {
	d := dbtest.New(t)
	ctx := t.Context()
	replica, server := startReplica(t, d), enroll(t, d, db.KindServer, nil)
	devices := make([]db.Device, 10) // The server has ten ports.
	for i := range devices {
		devices[i] = enroll(t, d, db.KindClient, nil)
		allocate(t, d, devices[i].ID, server.ID)
	}
	f := follow(t, d)
	const rounds = 20
	var writers sync.WaitGroup
	for i, device := range devices {
		writers.Go(func() {
			for n := range rounds {
				if _, err := d.UpdateDevice(ctx, everything, device.ID, db.DevicePatch{Name: ptr(fmt.Sprint(i, "-", n))}); err != nil {
					t.Error(err)
				}
				generation, err := d.Connect(ctx, device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica})
				if err != nil {
					t.Error(err)
				}
				if err := d.Disconnect(ctx, device.ID, generation, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writers.Wait()
		close(done)
	}()
	counts := map[uuid.UUID]int{}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, e := range f.next() { // It checks that ids follow one another.
			if e.Type == db.EventDeviceUpdated {
				counts[*e.DeviceID]++
			}
		}
	}
	for _, device := range devices {
		if got := counts[device.ID]; got != 3*rounds {
			t.Errorf("%d events of a device with %d changes", got, 3*rounds)
		}
	}
}

func TestEvents_AreGoneWithTheirTransaction(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	f := follow(t, d)
	sql := dbtest.SQL(t, d)
	tx, err := sql.BeginTx(t.Context(), nil)
	check(t, err)
	_, err = tx.ExecContext(t.Context(), `UPDATE devices SET name = 'other'`)
	check(t, err)
	check(t, tx.Rollback())
	f.want("rolled back")
	// Of a part of a transaction too. The rest has its event.
	_, err = sql.ExecContext(t.Context(), `BEGIN; SAVEPOINT a; UPDATE devices SET region = 'other'; ROLLBACK TO a; COMMIT`)
	check(t, err)
	f.want("part rolled back")
	_, err = sql.ExecContext(t.Context(), `BEGIN; UPDATE devices SET name = 'x'; UPDATE devices SET name = 'y'; COMMIT`)
	check(t, err)
	f.want("two changes of one row", "device.updated "+device.ID.String())
	_, err = sql.ExecContext(t.Context(), `BEGIN; INSERT INTO devices (name, kind, created_at, expires_at, approved_at)
		VALUES ('x', 'client', now(), now(), now()); DELETE FROM devices WHERE name = 'x'; COMMIT`)
	check(t, err)
	f.want("made and deleted")
	var left int
	check(t, sql.QueryRowContext(t.Context(), `SELECT count(*) FROM event_commits`).Scan(&left))
	if left != 0 {
		t.Errorf("%d rows are left of transactions", left)
	}
}

func TestEvents_OthersAreAppendedInOrder(t *testing.T) {
	d := dbtest.New(t)
	ada := createUser(t, d, "ada@example.com")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	made := allocate(t, d, client.ID, server.ID)
	f := follow(t, d)
	notices, err := d.ListenLive(t.Context())
	check(t, err)
	gone := int64(-1)
	check(t, d.AppendEvents(t.Context(),
		db.NewEvent{Type: "connection.opened", AllocationID: &made.ID, Payload: []byte(`{"connection": {"id": "1"}}`)},
		db.NewEvent{Type: "connection.closed", AllocationID: &gone, UserID: &ada},
		db.NewEvent{Type: "device.test", DeviceID: &server.ID}))
	if notice := await.Receive(t, notices, "notice"); notice.All || !notice.Has(db.TopicEvents) || len(notice.Topics) != 1 {
		t.Errorf("notice %+v", notice)
	}
	got := f.next()
	if len(got) != 3 {
		t.Fatalf("events %+v", got)
	}
	opened, closed, test := got[0], got[1], got[2]
	if opened.Type != "connection.opened" || *opened.DeviceID != client.ID || *opened.UserID != ada || string(opened.Payload) != `{"connection": {"id": "1"}}` {
		t.Errorf("opened %+v %s", opened, opened.Payload)
	}
	if closed.Type != "connection.closed" || *closed.AllocationID != gone || closed.DeviceID != nil || *closed.UserID != ada || closed.Payload != nil {
		t.Errorf("closed %+v", closed)
	}
	if test.Type != "device.test" || *test.DeviceID != server.ID || test.UserID != nil {
		t.Errorf("test %+v", test)
	}
	check(t, d.AppendEvents(t.Context()))
	f.want("nothing")
}

func TestEvents_LogIsBounded(t *testing.T) {
	d := dbtest.New(t)
	for range 5 {
		enroll(t, d, db.KindClient, nil)
	}
	sql := dbtest.SQL(t, d)
	whole, err := d.EventsAfter(t.Context(), 0, 0)
	check(t, err)
	if whole.Before != 0 || !whole.Has(0) || !whole.Has(whole.Newest) || whole.Has(whole.Newest+1) || whole.Epoch == "" {
		t.Errorf("log %+v", whole)
	}
	_, err = sql.ExecContext(t.Context(), `UPDATE events SET at = now() - interval '16 minutes' WHERE id <= 3`)
	check(t, err)
	more, err := d.PruneEvents(t.Context())
	check(t, err)
	log, err := d.EventsAfter(t.Context(), 0, 2)
	check(t, err)
	if more || log.Before != 3 || log.Has(2) || !log.Has(3) || log.Newest != whole.Newest || len(log.Events) != 2 || log.Events[0].ID != 4 {
		t.Errorf("more %v, log %+v", more, log)
	}
	// More than it holds.
	_, err = sql.ExecContext(t.Context(), `UPDATE event_counter SET last = last + 100000 - 2`)
	check(t, err)
	_, err = d.PruneEvents(t.Context())
	check(t, err)
	if log, err = d.EventsAfter(t.Context(), 0, 0); err != nil || log.Before != whole.Newest-2 {
		t.Errorf("log %+v, %v", log, err)
	}
	_, err = sql.ExecContext(t.Context(), `DELETE FROM events`)
	check(t, err)
	if log, err = d.EventsAfter(t.Context(), 0, 0); err != nil || log.Before != log.Newest || log.Epoch != whole.Epoch {
		t.Errorf("empty log %+v, %v", log, err)
	}
	_, err = sql.ExecContext(t.Context(), `UPDATE settings SET panel_id = gen_random_uuid()`)
	check(t, err)
	if log, err = d.EventsAfter(t.Context(), 0, 0); err != nil || log.Epoch == whole.Epoch {
		t.Errorf("another panel's log %+v, %v", log, err)
	}
}

// TestEventLog_LacksWhatWasDeletedInItsMiddle, as by two replicas that prune at once.
func TestEventLog_LacksWhatWasDeletedInItsMiddle(t *testing.T) {
	d := dbtest.New(t)
	from := follow(t, d).last
	for range 3 {
		startEnrollment(t, d, db.KindClient)
	}
	log, err := d.EventsAfter(t.Context(), from, 10)
	check(t, err)
	if len(log.Events) != 3 || !log.Has(from) {
		t.Fatalf("whole: %+v", log)
	}
	_, err = dbtest.SQL(t, d).ExecContext(t.Context(), `DELETE FROM events WHERE id = $1`, log.Events[1].ID)
	check(t, err)
	log, err = d.EventsAfter(t.Context(), from, 10)
	check(t, err)
	if len(log.Events) != 2 || log.Has(from) {
		t.Errorf("after a deletion: %+v", log)
	}
}
