package db_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// opened is a connection from an address that began some seconds after noon.
func opened(a db.Allocation, number int64, from string) db.OpenedConnection {
	return db.OpenedConnection{
		ConnectionCounters: db.ConnectionCounters{Number: number, PlayerRoundTrip: ptr(float32(1.5))},
		AllocationID:       a.ID, Source: netip.MustParseAddr(from), SourcePort: 40000, Since: noon.Add(time.Duration(number) * time.Second),
	}
}

func save(t *testing.T, d *db.DB, server uuid.UUID, changes db.ConnectionChanges) {
	t.Helper()
	check(t, d.SaveConnections(t.Context(), server, changes))
}

// listed returns the numbers of the connections that a scope has, in the order of the list.
func listed(t *testing.T, d *db.DB, scope db.Scope, filter db.ConnectionFilter) []int64 {
	t.Helper()
	rows, err := d.Connections(t.Context(), scope, filter, db.Page[db.ConnectionPosition]{})
	check(t, err)
	numbers := []int64{}
	for _, row := range rows {
		numbers = append(numbers, row.Number)
	}
	return numbers
}

func wantListed(t *testing.T, d *db.DB, scope db.Scope, filter db.ConnectionFilter, want ...int64) {
	t.Helper()
	if got := listed(t, d, scope, filter); !slices.Equal(got, want) {
		t.Errorf("%+v of %+v are %v, want %v", filter, scope, got, want)
	}
}

func TestConnections_AreWhatTunnelServersReport(t *testing.T) {
	d := dbtest.New(t)
	ada, grace := createUser(t, d, "ada@example.com"), createUser(t, d, "grace@example.com")
	client, others := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindClient, &grace)
	server, replica := enroll(t, d, db.KindServer, nil), startReplica(t, d)
	a, b := allocate(t, d, client.ID, server.ID), allocate(t, d, others.ID, server.ID)
	generation := connect(t, d, server, replica)
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{
		opened(a, 1, "203.0.113.7"), opened(a, -2, "::ffff:198.51.100.1"), opened(b, 3, "2001:db8::1"), opened(db.Allocation{ID: 1 << 40}, 4, "192.0.2.1"),
	}})
	wantListed(t, d, everything, db.ConnectionFilter{}, 3, 1, -2)
	mine := db.Scope{UserID: ada}
	wantListed(t, d, mine, db.ConnectionFilter{}, 1, -2)
	wantListed(t, d, mine, db.ConnectionFilter{Source: netip.MustParsePrefix("203.0.113.9/24")}, 1)
	wantListed(t, d, mine, db.ConnectionFilter{Protocol: "udp"})
	wantListed(t, d, everything, db.ConnectionFilter{DeviceID: &others.ID, ServerID: &server.ID, AllocationID: &b.ID}, 3)
	wantListed(t, d, db.Scope{DeviceID: client.ID}, db.ConnectionFilter{}, 1, -2)

	// Pages.
	after := db.ConnectionPosition{Since: noon.Add(time.Second), ServerID: server.ID, Number: 1}
	rows, err := d.Connections(t.Context(), everything, db.ConnectionFilter{}, db.Page[db.ConnectionPosition]{Limit: 5, After: &after})
	check(t, err)
	if len(rows) != 1 || rows[0].Number != -2 || rows[0].Source != "198.51.100.1" || rows[0].DeviceID != client.ID || rows[0].Protocol != "tcp" {
		t.Errorf("the page after 1: %+v", rows)
	}

	save(t, d, server.ID, db.ConnectionChanges{
		Generation: generation,
		Updated:    []db.ConnectionCounters{{Number: 1, DownloadBytes: 7, UploadBytes: 8, TunnelRoundTrip: ptr(float32(2.5))}, {Number: 99}},
		Closed:     []db.ConnectionCounters{{Number: -2}, {Number: 98}},
	})
	wantListed(t, d, mine, db.ConnectionFilter{}, 1)
	row, err := d.Connection(t.Context(), mine, server.ID, 1)
	check(t, err)
	if row.DownloadBytes != 7 || row.UploadBytes != 8 || row.PlayerRoundTrip != nil || *row.TunnelRoundTrip != 2.5 {
		t.Errorf("updated: %+v", row)
	}
	if _, err := d.Connection(t.Context(), mine, server.ID, 3); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("somebody else's: %v", err)
	}

	// The next connection of the tunnel server has its own list, and the one before has no say any more.
	next := connect(t, d, server, replica)
	save(t, d, server.ID, db.ConnectionChanges{Generation: next, Opened: []db.OpenedConnection{opened(a, 1, "203.0.113.7")}})
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, 5, "203.0.113.8")}, Closed: []db.ConnectionCounters{{Number: 1}}})
	wantListed(t, d, everything, db.ConnectionFilter{}, 3, 1)
	save(t, d, server.ID, db.ConnectionChanges{Generation: next, Complete: true})
	wantListed(t, d, everything, db.ConnectionFilter{}, 1)
}

func TestConnections_OfALostTunnelServerAreLeftOutAndForgotten(t *testing.T) {
	d := dbtest.New(t)
	client, server, replica := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil), startReplica(t, d)
	a := allocate(t, d, client.ID, server.ID)
	generation := connect(t, d, server, replica)
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, 1, "203.0.113.7")}})
	lost := func(seconds int) {
		t.Helper()
		_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
			`WITH r AS (UPDATE replicas SET renewed_at = now() - $1 * interval '1 second', lease_expires_at = now() - interval '1 second')
			UPDATE devices SET last_seen_at = now() - $1 * interval '1 second'`, seconds)
		check(t, err)
	}
	lost(50)
	wantListed(t, d, everything, db.ConnectionFilter{}, 1)
	lost(70)
	wantListed(t, d, everything, db.ConnectionFilter{})
	if err := d.CloseConnection(t.Context(), everything, server.ID, 1, 0); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("cutting it off: %v", err)
	}
	_, ran, err := d.Maintain(t.Context(), db.Maintenance{})
	check(t, err)
	var rows int
	check(t, dbtest.SQL(t, d).QueryRowContext(t.Context(), `SELECT count(*) FROM connections`).Scan(&rows))
	if !ran || rows != 0 {
		t.Errorf("%d are kept", rows)
	}
}

func TestConnections_ArePartOfWhoeverManagesTheAllocation(t *testing.T) {
	d := dbtest.New(t)
	ada, grace := createUser(t, d, "ada@example.com"), createUser(t, d, "grace@example.com")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	a := allocate(t, d, client.ID, server.ID)
	generation := connect(t, d, server, startReplica(t, d))
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, 1, "203.0.113.7"), opened(a, 2, "2001:db8:0:7::9")}})
	ctx, by := asSomebody(t)
	mine := db.Scope{UserID: ada}
	if err := d.CloseConnection(ctx, db.Scope{UserID: grace}, server.ID, 1, 0); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	for range 2 { // Again while it ends.
		check(t, d.CloseConnection(ctx, mine, server.ID, 1, 0))
	}
	check(t, d.CloseConnection(ctx, mine, server.ID, 2, time.Hour))
	for keptOut, want := range map[bool]int64{false: 1, true: 2} {
		cut, err := d.CutConnections(t.Context(), server.ID, keptOut)
		check(t, err)
		if !slices.Equal(cut, []int64{want}) {
			t.Errorf("cut off, and kept out %v: %v", keptOut, cut)
		}
	}
	kept, err := d.KeptOut(t.Context(), mine, a.ID)
	check(t, err)
	if len(kept) != 1 || kept[0].Source != "2001:db8:0:7::/64" || time.Until(kept[0].Until) > time.Hour || time.Until(kept[0].Until) < 59*time.Minute {
		t.Errorf("kept out: %+v", kept)
	}
	state, err := d.ServerState(t.Context(), server.ID)
	check(t, err)
	if of := state.KeptOut[a.ID]; len(of) != 1 || of[0].Source != kept[0].Source {
		t.Errorf("for the tunnel server: %+v", state.KeptOut)
	}
	if _, err := d.KeptOut(t.Context(), db.Scope{UserID: grace}, a.ID); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("a stranger's list: %v", err)
	}
	within := netip.MustParsePrefix("2001:db8:0:7::1/128")
	if err := d.Readmit(ctx, db.Scope{UserID: grace}, a.ID, within); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("a stranger readmits: %v", err)
	}
	check(t, d.Readmit(ctx, mine, a.ID, within))
	if err := d.Readmit(ctx, mine, a.ID, within); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	wantTrail(t, d, by, "connection.close", "allocation.keep_out", "connection.close", "allocation.readmit")
	// The owner of the allocation sees them.
	entries, err := d.Audit(t.Context(), db.AuditFilter{UserID: &ada, Action: "connection.close"}, db.Page[db.AuditPosition]{})
	check(t, err)
	if len(entries) != 2 || entries[0].TargetKind != "allocation" || string(entries[0].Changes) != "{}" {
		t.Errorf("the owner sees %+v", entries)
	}
}

func TestKeptOut_IsBounded(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	a := allocate(t, d, client.ID, server.ID)
	generation := connect(t, d, server, startReplica(t, d))
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, 1, "203.0.113.7"), opened(a, 2, "10.0.0.0")}})
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
		`INSERT INTO kept_out (allocation_id, source, until) SELECT $1, ('10.0.' || n / 256 || '.' || n % 256)::cidr, now() + interval '1 hour'
		FROM generate_series(0, 999) AS n`, a.ID)
	check(t, err)
	if err := d.CloseConnection(t.Context(), everything, server.ID, 1, time.Minute); !errors.Is(err, db.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	check(t, d.CloseConnection(t.Context(), everything, server.ID, 2, 2*time.Hour)) // It is one of them.
	kept, err := d.KeptOut(t.Context(), everything, a.ID)
	check(t, err)
	if last := kept[len(kept)-1]; len(kept) != db.MaxKeptOut || last.Source != "10.0.0.0" {
		t.Errorf("%d, and the last is %+v", len(kept), last)
	}
}

// TestKeptOut_IsBoundedByDevice: a tunnel server is sent what all allocations of a device keep out.
func TestKeptOut_IsBoundedByDevice(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	a := allocate(t, d, client.ID, server.ID)
	for range 5 {
		_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
			`INSERT INTO kept_out (allocation_id, source, until) SELECT $1, ('10.0.' || n / 256 || '.' || n % 256)::cidr, now() + interval '1 hour'
			FROM generate_series(0, 999) AS n`, allocate(t, d, client.ID, server.ID).ID)
		check(t, err)
	}
	other := allocate(t, d, enroll(t, d, db.KindClient, nil).ID, server.ID)
	generation := connect(t, d, server, startReplica(t, d))
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, 1, "203.0.113.7"), opened(other, 2, "203.0.113.7")}})
	if err := d.CloseConnection(t.Context(), everything, server.ID, 1, time.Minute); !errors.Is(err, db.ErrTooMany) {
		t.Errorf("one more of the device: %v", err)
	}
	check(t, d.CloseConnection(t.Context(), everything, server.ID, 2, time.Minute))
}

func TestConnections_AreInTheLogOfEvents(t *testing.T) {
	d := dbtest.New(t)
	ada := createUser(t, d, "ada@example.com")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	a := allocate(t, d, client.ID, server.ID)
	generation := connect(t, d, server, startReplica(t, d))
	log, err := d.EventsAfter(t.Context(), 0, 0)
	check(t, err)
	open := db.ConnectionChanges{Generation: generation, Opened: []db.OpenedConnection{opened(a, -1, "203.0.113.7"), opened(a, 2, "203.0.113.8")}}
	save(t, d, server.ID, open)
	save(t, d, server.ID, open) // Nothing has changed.
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Updated: []db.ConnectionCounters{{Number: 2, UploadBytes: 8}}})
	save(t, d, server.ID, db.ConnectionChanges{Generation: generation, Closed: []db.ConnectionCounters{{Number: -1, DownloadBytes: 9}}})
	check(t, d.DeleteAllocation(t.Context(), everything, a.ID)) // Those of the other go with it.
	log, err = d.EventsAfter(t.Context(), log.Newest, 100)
	check(t, err)
	var got []string
	for _, e := range log.Events {
		var payload struct {
			Connection struct {
				ID            string    `json:"id"`
				SourceAddress string    `json:"sourceAddress"`
				DownloadBytes int       `json:"downloadBytes"`
				Since         time.Time `json:"since"`
			} `json:"connection"`
		}
		if e.Payload != nil {
			check(t, json.Unmarshal(e.Payload, &payload))
			if e.UserID == nil || *e.UserID != ada || *e.AllocationID != a.ID || *e.DeviceID != client.ID || payload.Connection.Since.Before(noon.Add(-time.Minute)) {
				t.Errorf("%+v", e)
			}
		}
		c := payload.Connection
		got = append(got, fmt.Sprintf("%s %s %s %d", e.Type, strings.TrimPrefix(c.ID, strings.ReplaceAll(server.ID.String(), "-", "")+"-"), c.SourceAddress, c.DownloadBytes))
	}
	want := []string{
		"connection.opened ffffffffffffffff 203.0.113.7 0", "connection.opened 0000000000000002 203.0.113.8 0",
		"connection.closed ffffffffffffffff 203.0.113.7 9", "allocation.deleted   0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}
