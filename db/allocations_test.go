package db_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestCreateAllocations_ReturnsTheWholeRow(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	connect(t, d, server, startReplica(t, d))
	asked := db.NewAllocation{
		DeviceID: client.ID, ServerID: &server.ID, Protocols: []string{"tcp", "udp"}, Port: 25565,
		LocalHost: "192.168.1.5", LocalPort: 2456, Name: "valheim", ProxyProtocol: "v2", UDPIdleSeconds: 30,
		PlayerAddresses: true,
	}
	made, err := d.CreateAllocations(t.Context(), asked)
	check(t, err)
	if len(made) != 2 {
		t.Fatalf("made %d allocations", len(made))
	}
	for i, protocol := range asked.Protocols {
		want := db.Allocation{
			ID: made[i].ID, DeviceID: client.ID, ServerID: server.ID, Protocol: protocol, Port: 25565,
			LocalHost: "192.168.1.5", LocalPort: 2456, Name: "valheim", ProxyProtocol: "v2", UDPIdleSeconds: 30,
			Enabled: true, PlayerAddresses: true, CreatedAt: made[i].CreatedAt, PublicHost: "play.example.com", ServerOnline: true,
			ServerState: db.StatePending, ClientState: db.StatePending, Target: db.TargetUnknown,
		}
		if made[i] != want || made[i].ID == 0 || made[i].CreatedAt.IsZero() {
			t.Errorf("got  %+v\nwant %+v", made[i], want)
		}
		read, err := d.Allocation(t.Context(), everything, made[i].ID)
		check(t, err)
		if read != want {
			t.Errorf("read %+v\nwant %+v", read, want)
		}
	}
}

func TestCreateAllocations_ConcurrentCreatorsFillTheRangeExactly(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	ports := server.PortLast - server.PortFirst + 1
	var mu sync.Mutex
	taken := map[int]bool{}
	var creators sync.WaitGroup
	for range ports {
		creators.Go(func() {
			made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, &server.ID, "tcp", "udp"))
			if err != nil {
				t.Error(err)
				return
			}
			if len(made) != 2 || made[0].Port != made[1].Port || made[0].Protocol != "tcp" {
				t.Errorf("made %+v", made)
			}
			mu.Lock()
			defer mu.Unlock()
			taken[made[0].Port] = true
		})
	}
	creators.Wait()
	if len(taken) != ports {
		t.Errorf("%d distinct ports for %d creators", len(taken), ports)
	}
	for port := range taken {
		if port < server.PortFirst || port > server.PortLast {
			t.Errorf("port %d is out of range", port)
		}
	}
	_, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, &server.ID, "tcp"))
	wantErr(t, err, db.ErrNoPorts)

	// Deleting one frees its port.
	all, err := d.Allocations(t.Context(), everything, db.Page[int64]{Limit: 1})
	check(t, err)
	check(t, d.DeleteAllocation(t.Context(), everything, all[0].ID))
	made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, &server.ID, all[0].Protocol))
	check(t, err)
	if made[0].Port != all[0].Port {
		t.Errorf("given port %d, want the one that was freed, %d", made[0].Port, all[0].Port)
	}
}

func TestAllocations_ExcludeTheTunnelServersPortForAgents(t *testing.T) {
	d := dbtest.New(t)
	server, client := enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindClient, nil)
	_, err := d.Connect(t.Context(), server.ID, db.Hello{
		TokenVersion: server.TokenVersion, ReplicaID: startReplica(t, d), RelayPort: 20005, Fingerprint: "f",
	})
	check(t, err)
	ask := newAllocation(client.ID, nil, "udp")
	ask.Port = 20005
	_, err = d.CreateAllocations(t.Context(), ask)
	wantErr(t, err, db.ErrPortTaken)
	ask.ServerID = &server.ID
	_, err = d.CreateAllocations(t.Context(), ask)
	wantErr(t, err, db.ErrPortTaken)
	for range 9 {
		if a := allocate(t, d, client.ID, server.ID); a.Port == 20005 {
			t.Fatal("it was given away")
		}
	}
	_, err = d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoPorts)
	a, err := d.Allocations(t.Context(), everything, db.Page[int64]{Limit: 1})
	check(t, err)
	_, err = d.UpdateAllocation(t.Context(), everything, a[0].ID, db.AllocationPatch{Port: ptr(20005)})
	wantErr(t, err, db.ErrPortTaken)
	_, err = d.UpdateAllocation(t.Context(), everything, a[0].ID, db.AllocationPatch{Port: ptr(30005)})
	check(t, err)
}

func TestCreateAllocations_BothProtocolsOrNeither(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	udpOnly := newAllocation(client.ID, &server.ID, "udp")
	udpOnly.Port = 25565
	_, err := d.CreateAllocations(t.Context(), udpOnly)
	check(t, err)

	both := newAllocation(client.ID, &server.ID, "tcp", "udp")
	both.Port = 25565
	_, err = d.CreateAllocations(t.Context(), both)
	wantErr(t, err, db.ErrPortTaken)
	all, err := d.Allocations(t.Context(), everything, db.Page[int64]{})
	check(t, err)
	if len(all) != 1 {
		t.Errorf("%d allocations, want the first alone", len(all))
	}
	// The same port of the other protocol is a different port.
	tcpOnly := newAllocation(client.ID, &server.ID, "tcp")
	tcpOnly.Port = 25565
	_, err = d.CreateAllocations(t.Context(), tcpOnly)
	check(t, err)
}

func TestCreateAllocations_OneOfManyGetsARequestedPort(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	errs := make(chan error, 8)
	var creators sync.WaitGroup
	for i := range cap(errs) {
		creators.Go(func() {
			asked := newAllocation(client.ID, &server.ID, "tcp", "udp")
			if i%2 == 0 {
				slices.Reverse(asked.Protocols) // so that the two rows are locked in either order
			}
			asked.Port = 7777
			_, err := d.CreateAllocations(t.Context(), asked)
			errs <- err
		})
	}
	creators.Wait()
	close(errs)
	given := 0
	for err := range errs {
		if err == nil {
			given++
		} else if !errors.Is(err, db.ErrPortTaken) {
			t.Error(err)
		}
	}
	if given != 1 {
		t.Errorf("the port was given %d times", given)
	}
}

func TestCreateAllocations_ChoosesOnlineServerWithFewestAllocations(t *testing.T) {
	d := dbtest.New(t)
	client := enroll(t, d, db.KindClient, nil)
	_, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoServer)

	replica := startReplica(t, d)
	enroll(t, d, db.KindServer, nil) // offline
	busy, idle := enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindServer, nil)
	connect(t, d, busy, replica)
	connect(t, d, idle, replica)
	allocate(t, d, client.ID, busy.ID)
	made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	check(t, err)
	if made[0].ServerID != idle.ID {
		t.Error("a busier server, or one that is offline, was chosen")
	}

	// If only one server has the port free, that server is chosen.
	asked := newAllocation(client.ID, &idle.ID, "tcp")
	asked.Port = 25565
	_, err = d.CreateAllocations(t.Context(), asked)
	check(t, err)
	asked.ServerID = nil
	made, err = d.CreateAllocations(t.Context(), asked)
	check(t, err)
	if made[0].ServerID != busy.ID {
		t.Errorf("got %+v", made[0])
	}
	_, err = d.CreateAllocations(t.Context(), asked)
	wantErr(t, err, db.ErrPortTaken)
}

func TestCreateAllocations_SkipsFullServers(t *testing.T) {
	d := dbtest.New(t)
	client, replica := enroll(t, d, db.KindClient, nil), startReplica(t, d)
	full, err := d.EnsureEmbeddedServer(t.Context(), db.EmbeddedServer{Name: "full", PublicHost: "h", PortFirst: 5, PortLast: 5})
	check(t, err)
	connect(t, d, full, replica)
	allocate(t, d, client.ID, full.ID)
	_, err = d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
	wantErr(t, err, db.ErrNoPorts)

	roomy := enroll(t, d, db.KindServer, nil)
	connect(t, d, roomy, replica)
	for range 2 {
		made, err := d.CreateAllocations(t.Context(), newAllocation(client.ID, nil, "tcp"))
		check(t, err)
		if made[0].ServerID != roomy.ID {
			t.Error("a full server was chosen")
		}
	}
}

func TestCreateAllocations_RejectsInvalidRequests(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	for _, tc := range []struct {
		name           string
		client, server uuid.UUID
		want           error
	}{
		{"no such server", client.ID, uuid.New(), db.ErrNotFound},
		{"unapproved server", client.ID, startEnrollment(t, d, db.KindServer).ID, db.ErrNotFound},
		{"a client as server", client.ID, client.ID, db.ErrNotFound},
		{"no such client", uuid.New(), server.ID, db.ErrNotFound},
		{"unapproved client", startEnrollment(t, d, db.KindClient).ID, server.ID, db.ErrConflict},
		{"a server as client", server.ID, server.ID, db.ErrConflict},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := d.CreateAllocations(t.Context(), newAllocation(tc.client, &tc.server, "tcp"))
			wantErr(t, err, tc.want)
		})
	}
}

func TestAllocations_PagesNewestFirst(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	var ids []int64
	for range 5 {
		ids = append(ids, allocate(t, d, client.ID, server.ID).ID)
	}
	slices.Reverse(ids)
	page, err := d.Allocations(t.Context(), everything, db.Page[int64]{Limit: 2, After: &ids[1]})
	check(t, err)
	if len(page) != 2 || page[0].ID != ids[2] || page[1].ID != ids[3] {
		t.Errorf("got %+v", page)
	}
	// A row deleted between two pages does not break the list.
	check(t, d.DeleteAllocation(t.Context(), everything, ids[3]))
	page, err = d.Allocations(t.Context(), everything, db.Page[int64]{After: &ids[3]})
	check(t, err)
	if len(page) != 1 || page[0].ID != ids[4] {
		t.Errorf("got %+v", page)
	}
}

func TestUpdateAllocation_ChangesOnlyWhatItNames(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	before := allocate(t, d, client.ID, server.ID)
	check(t, d.SaveReports(t.Context(), server.ID, db.KindServer, []db.Report{{AllocationID: before.ID, State: db.StateReady}}))
	before.ServerState = db.StateReady

	after, err := d.UpdateAllocation(t.Context(), everything, before.ID, db.AllocationPatch{
		Name: ptr("new"), LocalPort: ptr(1), Port: &before.Port,
	})
	check(t, err)
	before.Name, before.LocalPort = "new", 1
	if after != before {
		t.Errorf("got  %+v\nwant %+v", after, before)
	}
	after, err = d.UpdateAllocation(t.Context(), everything, before.ID, db.AllocationPatch{
		LocalHost: ptr("::1"), ProxyProtocol: ptr("v1"), UDPIdleSeconds: ptr(5),
		PlayerAddresses: ptr(false),
	})
	check(t, err)
	before.LocalHost, before.ProxyProtocol, before.UDPIdleSeconds = "::1", "v1", 5
	before.PlayerAddresses = false
	if after != before {
		t.Errorf("got  %+v\nwant %+v", after, before)
	}
	_, err = d.UpdateAllocation(t.Context(), everything, before.ID+1, db.AllocationPatch{})
	wantErr(t, err, db.ErrNotFound)
}

func TestUpdateAllocation_NewPortIsPendingOrTaken(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	first, second := allocate(t, d, client.ID, server.ID), allocate(t, d, client.ID, server.ID)
	check(t, d.SaveReports(t.Context(), server.ID, db.KindServer, []db.Report{
		{AllocationID: first.ID, State: db.StateFailed, Reason: "in use"},
	}))
	_, err := d.UpdateAllocation(t.Context(), everything, first.ID, db.AllocationPatch{Port: &second.Port})
	wantErr(t, err, db.ErrPortTaken)
	moved, err := d.UpdateAllocation(t.Context(), everything, first.ID, db.AllocationPatch{Port: ptr(25565)})
	check(t, err)
	if moved.Port != 25565 || moved.ServerState != db.StatePending || moved.ServerReason != "" {
		t.Errorf("got %+v", moved)
	}
}
