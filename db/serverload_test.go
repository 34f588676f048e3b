package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// load returns the load of one tunnel server.
func load(t *testing.T, d *db.DB, server db.Device) db.ServerLoad {
	t.Helper()
	loads, err := d.ServerLoads(t.Context())
	check(t, err)
	for _, one := range loads {
		if one.ServerID == server.ID {
			return one
		}
	}
	t.Fatalf("no load of %s in %+v", server.ID, loads)
	return db.ServerLoad{}
}

func TestServerLoads_AreWhatEachHasAndCarriesNow(t *testing.T) {
	d := dbtest.New(t)
	first, second, servers := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	made := pair(t, d, first.ID, servers[0].ID)
	pair(t, d, second.ID, servers[0].ID)
	report := func(sequence int64, ended time.Time, bytes int64) {
		check(t, d.AddUsage(t.Context(), servers[0].ID, db.UsageReport{
			Epoch: uuid.UUID{1}, Sequence: sequence, Ended: ended, Seconds: 10,
			Allocations: []db.AllocationUsage{
				{AllocationID: made[0].ID, UsageCounts: db.UsageCounts{DownloadBytes: bytes, UploadBytes: 40}},
				{AllocationID: made[1].ID, UsageCounts: db.UsageCounts{DownloadBytes: 100}},
			},
		}))
	}
	report(1, time.Now().Add(-time.Minute), 1e6)
	if got := load(t, d, servers[0]); got != (db.ServerLoad{ServerID: servers[0].ID, Allocations: 4, Clients: 2}) {
		t.Errorf("a minute after the last report: %+v", got)
	}
	report(2, time.Now(), 700)
	if got := load(t, d, servers[0]); got.DownloadRate != 80 || got.UploadRate != 4 {
		t.Errorf("carries %+v", got)
	}
	if got := load(t, d, servers[1]); got != (db.ServerLoad{ServerID: servers[1].ID}) {
		t.Errorf("one without allocations: %+v", got)
	}
}

// TestServerLoads_CountADrain counts the allocations that have not moved yet, or still have players.
func TestServerLoads_CountADrain(t *testing.T) {
	for _, move := range []bool{false, true} {
		d := dbtest.New(t)
		client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
		made := append(pair(t, d, client.ID, servers[0].ID), pair(t, d, client.ID, servers[0].ID)...)
		want := func(allocations, left int) {
			t.Helper()
			if got := load(t, d, servers[0]); got.DrainTotal != 4 || got.DrainLeft != left || got.Allocations != allocations ||
				got.DrainMove != move || got.DrainUntil == nil {
				t.Errorf("move %t: want %d allocations, %d of 4 left: %+v", move, allocations, left, got)
			}
		}
		for range 2 { // The second one sets another limit.
			device, err := d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, move)
			check(t, err)
			if !move {
				check(t, d.SaveDrained(t.Context(), servers[0].ID, []db.DrainedPort{{AllocationID: made[0].ID, Until: *device.DrainUntil}}))
				want(4, 3)
			}
		}
		if move {
			want(4, 4)
			advanceDrains(t, d)
			want(0, 0)
			if got := load(t, d, servers[0]); got.Closing != 4 || got.Clients != 0 {
				t.Errorf("the ports that its last players have: %+v", got)
			}
			if got := load(t, d, servers[1]); got.Allocations != 4 || got.Clients != 1 || got.DrainUntil != nil {
				t.Errorf("where they went: %+v", got)
			}
		}
		cordon(t, d, servers[0].ID, false)
		if got := load(t, d, servers[0]); got.DrainUntil != nil || got.DrainLeft != 0 {
			t.Errorf("back in service: %+v", got)
		}
	}
}
