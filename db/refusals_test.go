package db_test

import (
	"maps"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// refuse adds what a tunnel server has refused at an allocation's port.
func refuse(t *testing.T, d *db.DB, server uuid.UUID, a db.Allocation, players, datagrams map[string]int64) {
	t.Helper()
	check(t, d.AddRefusals(t.Context(), server, []db.PortRefusals{
		{AllocationID: a.ID, Port: a.Port, Refusals: db.Refusals{Players: players, Datagrams: datagrams}},
	}))
}

func wantRefusals(t *testing.T, d *db.DB, a db.Allocation, players, datagrams map[string]int64) {
	t.Helper()
	got, err := d.Refusals(t.Context(), a.ID)
	check(t, err)
	if !maps.Equal(got.Players, players) || !maps.Equal(got.Datagrams, datagrams) {
		t.Errorf("refused %v, want %v and %v", got, players, datagrams)
	}
}

func TestRefusals_AddUpForTheTunnelServerAndPortOfTheAllocation(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	a, b := allocate(t, d, client.ID, servers[0].ID), allocate(t, d, client.ID, servers[0].ID)
	wantRefusals(t, d, a, nil, nil)
	refuse(t, d, servers[0].ID, a, map[string]int64{"denied": 2, "limit": 0}, map[string]int64{"denied": 5})
	refuse(t, d, servers[0].ID, a, map[string]int64{"denied": 3, "files": 1}, nil)
	refuse(t, d, servers[0].ID, b, nil, map[string]int64{"loop": 1})
	refuse(t, d, servers[0].ID, b, nil, nil)
	want := map[string]int64{"denied": 5, "files": 1}
	wantRefusals(t, d, a, want, map[string]int64{"denied": 5})
	wantRefusals(t, d, b, nil, map[string]int64{"loop": 1})

	// Not those of others, of another port, of what is no allocation.
	refuse(t, d, servers[1].ID, a, map[string]int64{"denied": 100}, nil)
	other := a
	other.Port++
	refuse(t, d, servers[0].ID, other, map[string]int64{"denied": 100}, nil)
	refuse(t, d, servers[0].ID, db.Allocation{ID: 1 << 40, Port: 20000}, map[string]int64{"denied": 100}, nil)
	wantRefusals(t, d, a, want, map[string]int64{"denied": 5})

	// A sum stays at the largest.
	refuse(t, d, servers[0].ID, a, map[string]int64{"denied": math.MaxInt64}, nil)
	refuse(t, d, servers[0].ID, a, map[string]int64{"denied": 1}, nil)
	want["denied"] = math.MaxInt64
	wantRefusals(t, d, a, want, map[string]int64{"denied": 5})
}

func TestRefusals_EndWithThePort(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	replica := startReplica(t, d)
	for _, s := range servers {
		connect(t, d, s, replica)
	}
	counts := map[string]int64{"denied": 7}
	update := func(a db.Allocation, patch db.AllocationPatch) db.Allocation {
		t.Helper()
		updated, err := d.UpdateAllocation(t.Context(), everything, a.ID, patch)
		check(t, err)
		return updated
	}
	a, kept := allocate(t, d, client.ID, servers[0].ID), allocate(t, d, client.ID, servers[0].ID)
	refuse(t, d, servers[0].ID, kept, counts, counts)
	for name, patch := range map[string]db.AllocationPatch{
		"another port":          {Port: ptr(20500)},
		"another tunnel server": {Move: &db.Move{ServerID: servers[1].ID, KeepPortFrom: 1, Linger: time.Hour}},
	} {
		refuse(t, d, a.ServerID, a, counts, counts)
		wantRefusals(t, d, a, counts, counts)
		// Neither does what is no other port.
		a = update(a, db.AllocationPatch{Name: ptr(name), Port: &a.Port})
		check(t, d.SaveReports(t.Context(), a.ServerID, db.KindServer, []db.Report{{AllocationID: a.ID, State: db.StateReady}}))
		wantRefusals(t, d, a, counts, counts)
		before := a
		a = update(a, patch)
		wantRefusals(t, d, a, nil, nil)
		// The tunnel server may have reported on the old port in between.
		refuse(t, d, before.ServerID, before, counts, counts)
		wantRefusals(t, d, a, nil, nil)
	}
	back := update(a, db.AllocationPatch{Move: &db.Move{ServerID: servers[0].ID, KeepPortFrom: 1, Linger: time.Hour}})
	wantRefusals(t, d, back, nil, nil)
	refuse(t, d, back.ServerID, back, counts, nil)
	check(t, d.DeleteAllocation(t.Context(), everything, back.ID))
	wantRefusals(t, d, back, nil, nil)
	refuse(t, d, back.ServerID, back, counts, nil) // In flight meanwhile.
	wantRefusals(t, d, kept, counts, counts)
	check(t, d.DeleteDevice(t.Context(), everything, client.ID))
	wantRefusals(t, d, kept, nil, nil)
}

func TestRefusals_OfManyAtOnceAllCount(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	var all []db.Allocation
	for range 4 {
		for _, s := range servers {
			all = append(all, allocate(t, d, client.ID, s.ID))
		}
	}
	var adding sync.WaitGroup
	for i := range 40 {
		adding.Go(func() {
			var refusals []db.PortRefusals
			for j := range all { // In any order.
				if a := all[(i+j)%len(all)]; a.ServerID == servers[i%2].ID {
					refusals = append(refusals, db.PortRefusals{AllocationID: a.ID, Port: a.Port, Refusals: db.Refusals{Players: map[string]int64{"denied": 1, "limit": 2}}})
				}
			}
			if err := d.AddRefusals(t.Context(), servers[i%2].ID, refusals); err != nil {
				t.Error(err)
			}
			if _, err := d.UpdateAllocation(t.Context(), everything, all[i%len(all)].ID, db.AllocationPatch{Name: ptr("renamed")}); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	for _, a := range all {
		wantRefusals(t, d, a, map[string]int64{"denied": 20, "limit": 40}, nil)
	}
}
