package db_test

import (
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func wantState(t *testing.T, d *db.DB, server db.Device, want string) {
	t.Helper()
	if got := readDevice(t, d, server.ID); got.ServerState != want {
		t.Errorf("the tunnel server is %s, want %s: %+v", got.ServerState, want, got)
	}
}

func TestDrain_RunsToItsEndAndCanBeReverted(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 1)
	server := servers[0]
	wantState(t, d, server, db.ServerActive)
	cordon(t, d, server.ID, true)
	wantState(t, d, server, db.ServerCordoned)
	cordon(t, d, server.ID, false)
	made := pair(t, d, client.ID, server.ID)
	ready(t, d, made[0])
	check(t, d.SavePlayers(t.Context(), server.ID, 2))

	_, err := d.DrainServer(t.Context(), everything, server.ID, time.Hour, false)
	check(t, err)
	wantState(t, d, server, db.ServerDraining)
	until := *readDevice(t, d, server.ID).DrainUntil
	for _, port := range ports(t, d, server.ID) {
		if !port.Draining || !port.DrainUntil.Equal(until) {
			t.Errorf("the port accepts players: %+v", port)
		}
	}
	// The ports drain and close one by one.
	for i, a := range made {
		check(t, d.SaveDrained(t.Context(), server.ID, []db.DrainedPort{{AllocationID: a.ID, Until: until}}))
		if left := len(ports(t, d, server.ID)); left != 1-i {
			t.Errorf("%d ports are left", left)
		}
	}
	wantState(t, d, server, db.ServerDraining) // It reports two players.
	check(t, d.SavePlayers(t.Context(), server.ID, 0))
	wantState(t, d, server, db.ServerDrained)
	if got := readDevice(t, d, server.ID).Players; got == nil || *got != 0 {
		t.Errorf("players: %v", got)
	}
	// A restart does not change that. The number of players is unknown then, but nobody can join.
	connect(t, d, readDevice(t, d, server.ID), startReplica(t, d))
	wantState(t, d, server, db.ServerDrained)
	if got := readDevice(t, d, server.ID).Players; got != nil {
		t.Errorf("players: %d", *got)
	}
	cordon(t, d, server.ID, false)
	wantState(t, d, server, db.ServerActive)
	for _, port := range ports(t, d, server.ID) {
		if port.Draining || port.Drained || port.DrainUntil != nil || port.ServerState != db.StatePending {
			t.Errorf("back in service: %+v", port)
		}
	}
	if left := len(ports(t, d, server.ID)); left != 2 {
		t.Errorf("%d ports are back", left)
	}
}

func TestDrain_WithoutAllocationsIsDrainedAtOnce(t *testing.T) {
	d := dbtest.New(t)
	server := enroll(t, d, db.KindServer, nil)
	drained, err := d.DrainServer(t.Context(), everything, server.ID, time.Hour, true)
	check(t, err)
	if drained.ServerState != db.ServerDrained {
		t.Errorf("got %+v", drained)
	}
	_, err = d.DrainServer(t.Context(), everything, enroll(t, d, db.KindClient, nil).ID, time.Hour, true)
	wantErr(t, err, db.ErrConflict)
	_, err = d.DrainServer(t.Context(), db.Scope{UserID: 999}, server.ID, time.Hour, true)
	wantErr(t, err, db.ErrNotFound)
}

func TestDrain_EndsAtItsLimit(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 3)
	stays, moves := allocate(t, d, client.ID, servers[0].ID), allocate(t, d, client.ID, servers[1].ID)
	_, err := d.DrainServer(t.Context(), everything, servers[0].ID, 0, false)
	check(t, err)
	_, err = d.UpdateAllocation(t.Context(), everything, moves.ID, db.AllocationPatch{Move: &db.Move{ServerID: servers[2].ID}})
	check(t, err)
	wantState(t, d, servers[0], db.ServerDraining)
	// Several replicas at once.
	var replicas sync.WaitGroup
	for range 4 {
		replicas.Go(func() { advanceDrains(t, d) })
	}
	replicas.Wait()
	for _, server := range servers[:2] {
		if left := ports(t, d, server.ID); len(left) != 0 {
			t.Errorf("after the limit there is %+v", left)
		}
	}
	wantState(t, d, servers[0], db.ServerDrained)
	if a := readAllocation(t, d, stays.ID); !a.Draining || !a.Drained {
		t.Errorf("got %+v", a)
	}
}

func TestDrain_MovesEachToTheBestAndDrainsTheRestInPlace(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 3)
	var made []db.Allocation
	for range 10 {
		made = append(made, pair(t, d, client.ID, servers[0].ID)...)
	}
	// Seven ports are free elsewhere.
	for _, server := range servers[1:] {
		_, err := d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PortFirst: ptr(30000), PortLast: ptr(30004)})
		check(t, err)
	}
	for range 3 {
		pair(t, d, client.ID, servers[1].ID)
	}
	for _, a := range made { // Their ports are not free there.
		for _, server := range servers[1:] {
			asked := newAllocation(client.ID, &server.ID, a.Protocol)
			asked.Port = a.Port
			_, err := d.CreateAllocations(t.Context(), asked)
			check(t, err)
		}
	}
	_, err := d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, true)
	check(t, err)
	for _, port := range ports(t, d, servers[0].ID) {
		if port.Draining {
			t.Errorf("closed before it has another placement: %+v", port)
		}
	}
	var replicas sync.WaitGroup
	for range 3 {
		replicas.Go(func() { advanceDrains(t, d) })
	}
	replicas.Wait()
	moved := 0
	for i := 0; i < len(made); i += 2 {
		tcp, udp := readAllocation(t, d, made[i].ID), readAllocation(t, d, made[i+1].ID)
		if tcp.ServerID != udp.ServerID || tcp.Port != udp.Port {
			t.Errorf("separated: %+v %+v", tcp, udp)
		}
		if tcp.ServerID != servers[0].ID {
			moved++
		} else if !tcp.Draining || !udp.Draining {
			t.Errorf("it found no placement but accepts players: %+v", tcp)
		}
	}
	if moved != 7 {
		t.Errorf("%d of 10 have moved, 7 could", moved)
	}
	until := *readDevice(t, d, servers[0].ID).DrainUntil
	for _, port := range ports(t, d, servers[0].ID) {
		if !port.DrainUntil.Equal(until) {
			t.Errorf("another limit: %+v", port)
		}
	}
	// Ports that become free later are used.
	_, err = d.UpdateDevice(t.Context(), everything, servers[2].ID, db.DevicePatch{PortFirst: ptr(30000), PortLast: ptr(30009)})
	check(t, err)
	advanceDrains(t, d)
	for _, a := range made {
		if now := readAllocation(t, d, a.ID); now.ServerID == servers[0].ID || now.Draining {
			t.Errorf("still there: %+v", now)
		}
	}
}

func TestDrain_ExcludesConcurrentAllocations(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	var creators sync.WaitGroup
	for range 8 {
		creators.Go(func() {
			if _, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp")); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, false)
	check(t, err)
	before := ports(t, d, servers[0].ID)
	creators.Wait()
	after := ports(t, d, servers[0].ID)
	if len(after) != len(before) {
		t.Errorf("%d allocations, %d when it was drained", len(after), len(before))
	}
	for _, port := range after {
		if !port.Draining {
			t.Errorf("it accepts players: %+v", port)
		}
	}
}
