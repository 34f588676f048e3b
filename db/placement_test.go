package db_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// fleet creates tunnel servers that are online, each with ports 20000 to 20009.
func fleet(t *testing.T, d *db.DB, n int) []db.Device {
	t.Helper()
	replica := startReplica(t, d)
	servers := make([]db.Device, n)
	for i := range servers {
		servers[i] = enroll(t, d, db.KindServer, nil)
		connect(t, d, servers[i], replica)
	}
	return servers
}

// pair creates allocations for both protocols on one port.
func pair(t *testing.T, d *db.DB, client, server uuid.UUID) []db.Allocation {
	t.Helper()
	made, err := d.CreateAllocations(t.Context(), newAllocation(client, &server, "tcp", "udp"))
	check(t, err)
	return made
}

func readAllocation(t *testing.T, d *db.DB, id int64) db.Allocation {
	t.Helper()
	a, err := d.Allocation(t.Context(), everything, id)
	check(t, err)
	return a
}

func moveTo(t *testing.T, d *db.DB, id int64, server uuid.UUID) db.Allocation {
	t.Helper()
	a, err := d.UpdateAllocation(t.Context(), everything, id, db.AllocationPatch{
		Move: &db.Move{ServerID: server, KeepPortFrom: 1, Linger: time.Hour},
	})
	check(t, err)
	return a
}

// ports returns the allocations in the desired state of a tunnel server.
func ports(t *testing.T, d *db.DB, server uuid.UUID) []db.Allocation {
	t.Helper()
	state, err := d.ServerState(t.Context(), server)
	check(t, err)
	return state.Allocations
}

// ready makes both sides of an allocation report that they are ready.
func ready(t *testing.T, d *db.DB, a db.Allocation) {
	t.Helper()
	report := []db.Report{{AllocationID: a.ID, State: db.StateReady}}
	check(t, d.SaveReports(t.Context(), a.ServerID, db.KindServer, report))
	check(t, d.SaveReports(t.Context(), a.DeviceID, db.KindClient, report))
}

func advanceDrains(t *testing.T, d *db.DB) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = d.AdvanceDrains(t.Context())
		check(t, err)
	}
}

func cordon(t *testing.T, d *db.DB, id uuid.UUID, cordoned bool) {
	t.Helper()
	_, err := d.UpdateDevice(t.Context(), everything, id, db.DevicePatch{Cordoned: &cordoned})
	check(t, err)
}

func TestPlacement_SkipsCordonedServers(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	allocate(t, d, client.ID, servers[1].ID)
	cordon(t, d, servers[0].ID, true)
	made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	check(t, err)
	if made[0].ServerID != servers[1].ID {
		t.Error("a cordoned server was chosen")
	}
	_, err = d.CreateAllocations(t.Context(), newAllocation(client.ID, &servers[0].ID, "tcp"))
	wantErr(t, err, db.ErrCordoned)
	asked := newAllocation(client.ID, &servers[0].ID, "tcp")
	asked.OnCordoned = true
	_, err = d.CreateAllocations(t.Context(), asked)
	check(t, err)

	_, err = d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, false)
	check(t, err)
	_, err = d.CreateAllocations(t.Context(), asked)
	wantErr(t, err, db.ErrDraining)
	cordon(t, d, servers[1].ID, true)
	_, err = d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoServer)
}

// ofOrganisation creates an approved device that belongs to an organisation.
func ofOrganisation(t *testing.T, d *db.DB, kind string, org int64) db.Device {
	t.Helper()
	device, err := d.ApproveDevice(t.Context(), startEnrollment(t, d, kind).ID, db.Approval{
		At: noon, OrganisationID: &org, PublicHost: "guild.example.com", PortFirst: 20000, PortLast: 20000,
	})
	check(t, err)
	return device
}

func TestPlacement_PrefersTheOrganisationsServersAndReservesThem(t *testing.T) {
	d := dbtest.New(t)
	org, other := dbtest.Organisation(t, d, "guild"), dbtest.Organisation(t, d, "clan")
	own, foreign, shared := ofOrganisation(t, d, db.KindServer, org), ofOrganisation(t, d, db.KindServer, other), fleet(t, d, 1)[0]
	replica := startReplica(t, d)
	connect(t, d, own, replica)
	connect(t, d, foreign, replica)
	member, outsider := ofOrganisation(t, d, db.KindClient, org), enroll(t, d, db.KindClient, nil)

	_, err := d.CreateAllocations(t.Context(), newAllocation(outsider.ID, &own.ID, "tcp"))
	wantErr(t, err, db.ErrNotFound)
	_, err = d.CreateAllocations(t.Context(), newAllocation(member.ID, &foreign.ID, "tcp"))
	wantErr(t, err, db.ErrNotFound)
	// First the organisation's only port, although the shared server is empty, then the shared one.
	for _, want := range []db.Device{own, shared, shared} {
		made, err := d.CreateAllocations(t.Context(), newAllocation(member.ID, nil, "tcp"))
		check(t, err)
		if made[0].ServerID != want.ID {
			t.Errorf("it went to %s", made[0].PublicHost)
		}
	}
	cordon(t, d, shared.ID, true)
	_, err = d.CreateAllocations(t.Context(), newAllocation(member.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoPorts)
	_, err = d.CreateAllocations(t.Context(), newAllocation(outsider.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoServer)
}

func TestPlacement_LoadIsRelativeToTheSizeOfTheRange(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	// Three of a hundred ports are a lower load than one of ten.
	_, err := d.UpdateDevice(t.Context(), everything, servers[0].ID, db.DevicePatch{PortFirst: ptr(20000), PortLast: ptr(20099)})
	check(t, err)
	for range 3 {
		allocate(t, d, client.ID, servers[0].ID)
	}
	allocate(t, d, client.ID, servers[1].ID)
	made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	check(t, err)
	if made[0].ServerID != servers[0].ID {
		t.Error("the busier server was chosen")
	}
}

func TestMove_MovesBothProtocolsAndKeepsTheOldPortForItsPlayers(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	made := pair(t, d, client.ID, servers[0].ID)
	ready(t, d, made[0])
	moved := moveTo(t, d, made[1].ID, servers[1].ID)
	if moved.ServerID != servers[1].ID || moved.Port != made[0].Port || moved.ServerState != db.StatePending || moved.ClientState != db.StatePending {
		t.Errorf("moved to %+v", moved)
	}
	if other := readAllocation(t, d, made[0].ID); other.ServerID != servers[1].ID || other.Port != moved.Port {
		t.Errorf("the other protocol is at %+v", other)
	}
	all, err := d.Allocations(t.Context(), everything, db.Page[int64]{})
	check(t, err)
	if len(all) != 2 {
		t.Errorf("%d allocations are listed", len(all))
	}
	state, err := d.ClientState(t.Context(), client.ID)
	check(t, err)
	if len(state.Allocations) != 2 || len(state.Servers) != 2 || len(state.Leaving[moved.ID]) != 1 || state.Leaving[moved.ID][0] != servers[0].ID {
		t.Errorf("the client's state: %+v", state)
	}
	// Until the new port is ready, the old one accepts players and cannot be allocated.
	old := ports(t, d, servers[0].ID)
	if len(old) != 2 || *old[1].Retires != moved.ID || old[0].Draining || old[0].Port != made[0].Port {
		t.Fatalf("the old ports: %+v", old)
	}
	asked := newAllocation(client.ID, &servers[0].ID, "udp")
	asked.Port = made[0].Port
	_, err = d.CreateAllocations(t.Context(), asked)
	wantErr(t, err, db.ErrPortTaken)

	ready(t, d, moved)
	for _, port := range ports(t, d, servers[0].ID) {
		if port.Draining != (*port.Retires == moved.ID) {
			t.Errorf("old port of %d, ready is %d: %+v", *port.Retires, moved.ID, port)
		}
	}
	old = ports(t, d, servers[0].ID)
	drained := []db.DrainedPort{{AllocationID: moved.ID, Until: old[1].DrainUntil.Add(-time.Minute)}}
	check(t, d.SaveDrained(t.Context(), servers[0].ID, drained)) // Of another drain.
	if len(ports(t, d, servers[0].ID)) != 2 {
		t.Error("a report on an earlier drain freed a port")
	}
	drained[0].Until = *old[1].DrainUntil
	check(t, d.SaveDrained(t.Context(), servers[0].ID, drained))
	if now := ports(t, d, servers[0].ID); len(now) != 1 || *now[0].Retires != made[0].ID {
		t.Errorf("after it has drained: %+v", now)
	}
	_, err = d.CreateAllocations(t.Context(), asked) // Its port is free.
	check(t, err)
}

func TestMove_IgnoresReportsAboutTheOldServer(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	a := allocate(t, d, client.ID, servers[0].ID)
	moveTo(t, d, a.ID, servers[1].ID)
	check(t, d.SaveReports(t.Context(), servers[0].ID, db.KindServer, []db.Report{{AllocationID: a.ID, State: db.StateReady}}))
	check(t, d.SaveReports(t.Context(), client.ID, db.KindClient, []db.Report{{AllocationID: a.ID, ServerID: &servers[0].ID, State: db.StateReady}}))
	if now := readAllocation(t, d, a.ID); now.ServerState != db.StatePending || now.ClientState != db.StatePending {
		t.Errorf("got %+v", now)
	}
}

func TestMove_BackRestoresTheOldPort(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	made := pair(t, d, client.ID, servers[0].ID)
	// Its port is taken there, so it gets another one.
	asked := newAllocation(client.ID, &servers[1].ID, "udp")
	asked.Port = made[0].Port
	_, err := d.CreateAllocations(t.Context(), asked)
	check(t, err)
	moved := moveTo(t, d, made[0].ID, servers[1].ID)
	if moved.Port == made[0].Port || moved.Port < 20000 || moved.Port > 20009 {
		t.Fatalf("moved to port %d from %d", moved.Port, made[0].Port)
	}
	back := moveTo(t, d, made[0].ID, servers[0].ID)
	if back.Port != made[0].Port {
		t.Errorf("back on port %d, was on %d", back.Port, made[0].Port)
	}
	if old := ports(t, d, servers[0].ID); len(old) != 2 || old[0].Retires != nil || old[0].DrainUntil != nil {
		t.Errorf("it still has an old port: %+v", old)
	}
	if left := ports(t, d, servers[1].ID); len(left) != 3 {
		t.Errorf("the old port: %+v", left)
	}
}

func TestMove_RejectsInvalidMoves(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 3)
	a := allocate(t, d, client.ID, servers[0].ID)
	taken := allocate(t, d, client.ID, servers[1].ID)
	cordon(t, d, servers[2].ID, true)
	for name, test := range map[string]struct {
		server uuid.UUID
		port   *int
		want   error
	}{
		"no such server": {uuid.New(), nil, db.ErrNotFound},
		"a client":       {client.ID, nil, db.ErrNotFound},
		"an offline one": {enroll(t, d, db.KindServer, nil).ID, nil, db.ErrOffline},
		"a cordoned one": {servers[2].ID, nil, db.ErrCordoned},
		"a taken port":   {servers[1].ID, &taken.Port, db.ErrPortTaken},
	} {
		patch := db.AllocationPatch{Port: test.port, Move: &db.Move{ServerID: test.server}}
		if _, err := d.UpdateAllocation(t.Context(), everything, a.ID, patch); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		_, err := d.UpdateAllocation(t.Context(), db.Scope{UserID: 999}, a.ID, patch)
		wantErr(t, err, db.ErrNotFound)
	}
	if now := readAllocation(t, d, a.ID); now.ServerID != servers[0].ID {
		t.Errorf("it has moved: %+v", now)
	}
}

func TestMove_DeletionDeletesOldPorts(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	byItself, withServer := allocate(t, d, client.ID, servers[0].ID), allocate(t, d, client.ID, servers[0].ID)
	for _, a := range []db.Allocation{byItself, withServer} {
		moveTo(t, d, a.ID, servers[1].ID)
	}
	check(t, d.DeleteAllocation(t.Context(), everything, byItself.ID))
	if old := ports(t, d, servers[0].ID); len(old) != 1 {
		t.Errorf("left: %+v", old)
	}
	check(t, d.DeleteDevice(t.Context(), everything, servers[1].ID))
	if old := ports(t, d, servers[0].ID); len(old) != 0 {
		t.Errorf("left: %+v", old)
	}
}

func TestMove_ConcurrentMovesShareTheLastPorts(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	var made []db.Allocation
	for range 10 {
		made = append(made, pair(t, d, client.ID, servers[0].ID)[0])
	}
	// Concurrent moves and creations on the new server: 16 for 10 ports.
	errs := make(chan error, 16)
	var callers sync.WaitGroup
	for i := range cap(errs) {
		callers.Go(func() {
			if i >= len(made) {
				_, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, &servers[1].ID, "tcp", "udp"))
				errs <- err
				return
			}
			_, err := d.UpdateAllocation(t.Context(), everything, made[i].ID, db.AllocationPatch{
				Move: &db.Move{ServerID: servers[1].ID, KeepPortFrom: 1, Linger: time.Hour},
			})
			errs <- err
		})
	}
	callers.Wait()
	close(errs)
	given := 0
	for err := range errs {
		if err == nil {
			given++
		} else if !errors.Is(err, db.ErrNoPorts) {
			t.Error(err)
		}
	}
	if given != 10 {
		t.Errorf("%d got a port of 10", given)
	}
	at := map[int]int{}
	for _, a := range ports(t, d, servers[1].ID) {
		at[a.Port]++
	}
	for port, n := range at {
		if n != 2 {
			t.Errorf("port %d has %d protocols", port, n)
		}
	}
	if len(at) != 10 {
		t.Errorf("%d ports are in use", len(at))
	}
}
