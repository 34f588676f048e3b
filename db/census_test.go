package db_test

import (
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestCensus_CountsDevicesAndAllocations(t *testing.T) {
	d := dbtest.New(t)
	replica := startReplica(t, d)
	client, other, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	startEnrollment(t, d, db.KindClient) // Pending: not counted.
	connect(t, d, client, replica)
	connect(t, d, server, replica)
	ready, _ := allocate(t, d, client.ID, server.ID), allocate(t, d, client.ID, server.ID)
	allocate(t, d, other.ID, server.ID)
	check(t, d.SaveReports(t.Context(), server.ID, db.KindServer, []db.Report{{AllocationID: ready.ID, State: db.StateReady}}))

	census, err := d.Census(t.Context())
	check(t, err)
	if want := []db.DeviceCount{{db.KindClient, 2, 1}, {db.KindServer, 1, 1}}; !slices.Equal(census.Devices, want) {
		t.Errorf("devices %+v, want %+v", census.Devices, want)
	}
	for _, want := range []db.AllocationCount{
		{DeviceOnline: true, ServerOnline: true, ServerState: db.StateReady, ClientState: db.StatePending, Enabled: true, Count: 1},
		{DeviceOnline: true, ServerOnline: true, ServerState: db.StatePending, ClientState: db.StatePending, Enabled: true, Count: 1},
		{DeviceOnline: false, ServerOnline: true, ServerState: db.StatePending, ClientState: db.StatePending, Enabled: true, Count: 1},
	} {
		if !slices.Contains(census.Allocations, want) {
			t.Errorf("allocations %+v lack %+v", census.Allocations, want)
		}
	}
	if len(census.Allocations) != 3 {
		t.Errorf("allocations %+v", census.Allocations)
	}
}

func TestPoolStats_CountConnections(t *testing.T) {
	d := dbtest.New(t)
	check(t, d.Ping(t.Context()))
	if s := d.PoolStats(); s.Max == 0 || s.InUse != 0 || s.Idle == 0 {
		t.Errorf("%+v", s)
	}
}
