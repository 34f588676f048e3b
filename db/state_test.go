package db_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestSaveReports_OnlyOfItsOwnSideAndAllocations(t *testing.T) {
	d := dbtest.New(t)
	client, other, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	mine, theirs := allocate(t, d, client.ID, server.ID), allocate(t, d, other.ID, server.ID)
	reports := []db.Report{
		{AllocationID: mine.ID, State: db.StateFailed, Reason: "refused", Target: db.TargetDown, TargetReason: "nothing there"},
		{AllocationID: theirs.ID, State: db.StateReady},
		{AllocationID: 1 << 60, State: db.StateReady},
	}
	check(t, d.SaveReports(t.Context(), client.ID, db.KindClient, reports))
	check(t, d.SaveReports(t.Context(), client.ID, db.KindServer, reports))
	check(t, d.SaveReports(t.Context(), client.ID, db.KindClient, nil))

	mine.ClientState, mine.ClientReason = db.StateFailed, "refused"
	mine.Target, mine.TargetReason = db.TargetDown, "nothing there"
	for _, want := range []db.Allocation{mine, theirs} {
		got, err := d.Allocation(t.Context(), everything, want.ID)
		check(t, err)
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// A device that reconnects has not reported yet. Reports of the other side stay valid.
func TestConnect_ResetsReports(t *testing.T) {
	d := dbtest.New(t)
	client, server, replica := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil), startReplica(t, d)
	made := allocate(t, d, client.ID, server.ID)
	report := []db.Report{{AllocationID: made.ID, State: db.StateFailed, Reason: "why", Target: db.TargetDown, TargetReason: "nothing there"}}
	check(t, d.SaveReports(t.Context(), client.ID, db.KindClient, report))
	check(t, d.SaveReports(t.Context(), server.ID, db.KindServer, report))

	connect(t, d, client, replica)
	got, err := d.Allocation(t.Context(), everything, made.ID)
	check(t, err)
	if got.Target != db.TargetUnknown || got.TargetReason != "" {
		t.Errorf("the target is %s, %q", got.Target, got.TargetReason)
	}
	if got.ClientState != db.StatePending || got.ClientReason != "" || got.ServerState != db.StateFailed || !got.DeviceOnline {
		t.Errorf("got %+v", got)
	}
	connect(t, d, server, replica)
	got, err = d.Allocation(t.Context(), everything, made.ID)
	check(t, err)
	if got.ServerState != db.StatePending || got.ServerReason != "" || !got.ServerOnline {
		t.Errorf("got %+v", got)
	}
}

// Both sides of many allocations report and reconnect concurrently, which must not cause a
// deadlock.
func TestSaveReports_BothSidesAtOnce(t *testing.T) {
	d := dbtest.New(t)
	client, server, replica := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil), startReplica(t, d)
	var forwards []db.Report
	for range 10 {
		forwards = append(forwards, db.Report{AllocationID: allocate(t, d, client.ID, server.ID).ID})
	}
	backwards := slices.Clone(forwards)
	slices.Reverse(backwards)
	var sides sync.WaitGroup
	run := func(fn func(round int) error) {
		sides.Go(func() {
			for round := range 30 {
				if err := fn(round); err != nil {
					t.Error(err)
				}
			}
		})
	}
	states := []string{db.StateReady, db.StateFailed}
	save := func(device db.Device, reports []db.Report) func(int) error {
		return func(round int) error {
			fresh := slices.Clone(reports)
			for i := range fresh {
				fresh[i].State = states[round%2]
			}
			return d.SaveReports(t.Context(), device.ID, device.Kind, fresh)
		}
	}
	run(save(client, forwards))
	run(save(server, backwards))
	for _, device := range []db.Device{client, server} {
		run(func(int) error {
			_, err := d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica})
			return err
		})
	}
	sides.Wait()
}

func TestState_ContainsWhatADeviceNeeds(t *testing.T) {
	d := dbtest.New(t)
	client, other := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	server, elsewhere := enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindServer, nil)
	first, second := allocate(t, d, client.ID, server.ID), allocate(t, d, client.ID, server.ID)
	third := allocate(t, d, other.ID, server.ID)
	allocate(t, d, other.ID, elsewhere.ID)

	ofClient, err := d.ClientState(t.Context(), client.ID)
	check(t, err)
	if !slices.Equal(ofClient.Allocations, []db.Allocation{first, second}) ||
		len(ofClient.Servers) != 1 || ofClient.Servers[0].ID != server.ID || ofClient.Servers[0].PublicHost != "play.example.com" {
		t.Errorf("client's state %+v", ofClient)
	}
	ofServer, err := d.ServerState(t.Context(), server.ID)
	check(t, err)
	clients := map[uuid.UUID]int64{}
	for _, c := range ofServer.Clients {
		clients[c.ID] = c.TokenVersion
	}
	if !slices.Equal(ofServer.Allocations, []db.Allocation{first, second, third}) || len(ofServer.Clients) != 2 ||
		clients[client.ID] != client.TokenVersion || clients[other.ID] != other.TokenVersion {
		t.Errorf("server's state %+v", ofServer)
	}
	empty, err := d.ClientState(t.Context(), uuid.New())
	check(t, err)
	if len(empty.Allocations) != 0 || len(empty.Servers) != 0 {
		t.Errorf("state of an unknown device %+v", empty)
	}
}
