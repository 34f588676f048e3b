package control_test

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// refuse reports what a device has refused at allocations.
func refuse(peer *controltest.Peer, revision types.Revision, refusals ...types.AllocationRefusals) {
	peer.Send(types.StatusReport{Type: types.TypeStatus, Revision: revision, Allocations: []types.AllocationReport{}, Refusals: &refusals})
}

func refusals(a db.Allocation, players, datagrams types.RefusalCounts) types.AllocationRefusals {
	return types.AllocationRefusals{ID: a.ID, Players: players, Datagrams: datagrams}
}

func awaitRefusals(t *testing.T, d *db.DB, a db.Allocation, players, datagrams map[string]int64) {
	t.Helper()
	controltest.Eventually(t, fmt.Sprintf("%d has refused %v and %v", a.ID, players, datagrams), func() bool {
		got, err := d.Refusals(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		return maps.Equal(got.Players, players) && maps.Equal(got.Datagrams, datagrams)
	})
}

// counting counts the calls of AddRefusals. While it fails, the database is down for them.
type counting struct {
	*db.DB
	calls atomic.Int64
	fails atomic.Bool
}

func (c *counting) AddRefusals(ctx context.Context, server uuid.UUID, refusals []db.PortRefusals) error {
	c.calls.Add(1)
	if c.fails.Load() {
		return errDown
	}
	return c.DB.AddRefusals(ctx, server, refusals)
}

func TestHub_AddsUpWhatTunnelServersRefuse(t *testing.T) {
	d := dbtest.New(t)
	one, two := startReplica(t, d), startReplica(t, d)
	client, server, other := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a, b := allocate(t, d, client, server, "tcp", 20000), allocate(t, d, client, other, "udp", 20000)
	peer := one.connect(t, server)
	revision := controltest.Next[types.ServerSnapshot](peer).Revision
	refuse(peer, revision, refusals(a, types.RefusalCounts{"denied": 3}, nil))
	refuse(peer, revision, refusals(a, types.RefusalCounts{"denied": 4, "limit": 1}, nil), refusals(b, nil, types.RefusalCounts{"denied": 100}))
	awaitRefusals(t, d, a, map[string]int64{"denied": 7, "limit": 1}, nil)

	// On another replica it goes on, and beside it another tunnel server.
	peer, beside := two.connect(t, server), one.connect(t, other)
	revision = controltest.Next[types.ServerSnapshot](peer).Revision
	controltest.Next[types.ServerSnapshot](beside)
	refuse(beside, 1, refusals(b, nil, types.RefusalCounts{"too_long": 9}), refusals(a, types.RefusalCounts{"denied": 100}, nil))
	refuse(peer, revision, refusals(a, types.RefusalCounts{"denied": 1}, nil))
	awaitRefusals(t, d, a, map[string]int64{"denied": 8, "limit": 1}, nil)
	awaitRefusals(t, d, b, nil, map[string]int64{"too_long": 9})

	// A tunnel client refuses nothing.
	agent := one.connect(t, client)
	controltest.Next[types.ClientSnapshot](agent)
	refuse(agent, 1, refusals(a, types.RefusalCounts{"denied": 100}, nil))
	ready := types.AllocationReport{ID: a.ID, State: types.ReportReady}
	agent.Send(types.StatusReport{Type: types.TypeStatus, Revision: 1, Allocations: []types.AllocationReport{ready}})
	controltest.Eventually(t, "the client's report", func() bool { return allocation(t, d, a.ID).ClientState == db.StateReady })

	// With another port everything starts over, and what was refused on the old one is not counted.
	port := 20001
	if _, err := d.UpdateAllocation(t.Context(), db.Scope{All: true}, a.ID, db.AllocationPatch{Port: &port}); err != nil {
		t.Fatal(err)
	}
	revision = controltest.Next[types.ServerChange](peer).Revision
	awaitRefusals(t, d, a, nil, nil)
	refuse(peer, revision-1, refusals(a, types.RefusalCounts{"denied": 100}, nil))
	refuse(peer, revision, refusals(a, types.RefusalCounts{"denied": 2}, nil))
	awaitRefusals(t, d, a, map[string]int64{"denied": 2}, nil)
}

// A tunnel server that makes up reasons fills no table.
func TestHub_FoldsReasonsThatItDoesNotKnow(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	client, server := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	a := allocate(t, d, client, server, "tcp", 20000)
	peer := r.connect(t, server)
	controltest.Next[types.ServerSnapshot](peer)
	for i := range 3 {
		made := types.RefusalCounts{"denied": 1, "other": 1, "": 1, "De\x00nied": 1}
		for j := range 60 {
			made[fmt.Sprintf("reason_%d_%d", i, j)] = 1
		}
		refuse(peer, 1, refusals(a, made, made))
	}
	want := map[string]int64{"denied": 3, "other": 3 * 63}
	awaitRefusals(t, d, a, want, want)
}

func TestHub_AReportOfManyRefusalsIsOneStatement(t *testing.T) {
	store := &counting{DB: dbtest.New(t)}
	r := startReplica(t, store.DB, func(o *control.Options) { o.Store = store })
	client, server := enroll(t, store.DB, db.KindClient), enroll(t, store.DB, db.KindServer)
	var all []db.Allocation
	var report []types.AllocationRefusals
	for port := 20000; port < 20040; port++ {
		a := allocate(t, store.DB, client, server, "udp", port)
		all = append(all, a)
		report = append(report, refusals(a, nil, types.RefusalCounts{"denied": 1, "flow_limit": 2}))
	}
	peer := r.connect(t, server)
	controltest.Next[types.ServerSnapshot](peer)
	refuse(peer, 1, report...)
	for _, a := range all {
		awaitRefusals(t, store.DB, a, nil, map[string]int64{"denied": 1, "flow_limit": 2})
	}
	if n := store.calls.Load(); n != 1 {
		t.Errorf("%d calls for one report", n)
	}

	// While the database is down reports add up, and are stored once.
	store.fails.Store(true)
	for range 20 {
		refuse(peer, 1, report...)
	}
	controltest.Eventually(t, "the database was asked", func() bool { return store.calls.Load() > 1 })
	store.fails.Store(false)
	for _, a := range all {
		awaitRefusals(t, store.DB, a, nil, map[string]int64{"denied": 21, "flow_limit": 42})
	}
}
