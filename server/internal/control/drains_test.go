package control_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func report(revision types.Revision, id int64, drained bool) types.StatusReport {
	r := types.AllocationReport{ID: id, State: types.ReportReady}
	if drained {
		r.Drained = &drained
	}
	return types.StatusReport{Type: types.TypeStatus, Revision: revision, Allocations: []types.AllocationReport{r}}
}

func TestHub_MoveOpensTheNewPortBeforeItClosesTheOldOne(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, oldRow, newRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a := allocate(t, d, clientRow, oldRow, "tcp", 25565)
	client, old, place := r.connect(t, clientRow), r.connect(t, oldRow), r.connect(t, newRow)
	for _, row := range []db.Device{clientRow, oldRow, newRow} {
		controltest.Eventually(t, "it is online", func() bool { return device(t, d, row).Online })
	}
	controltest.Next[types.ServerSnapshot](old)
	controltest.Next[types.ServerSnapshot](place)
	// The client received the tunnel servers as they connected.
	controltest.Next[types.ClientSnapshot](client)
	known := types.Revision(1)

	if _, err := d.UpdateAllocation(t.Context(), everything, a.ID, db.AllocationPatch{
		Move: &db.Move{ServerID: newRow.ID, KeepPortFrom: 1, Linger: time.Hour},
	}); err != nil {
		t.Fatal(err)
	}
	var change types.ClientChange
	for len(change.Allocations) == 0 {
		change = controltest.Next[types.ClientChange](client)
		known = change.Revision
	}
	if got := change.Allocations[0]; got.ServerID != newRow.ID || got.Leaving == nil || (*got.Leaving)[0] != oldRow.ID || len(change.RemovedServers) != 0 {
		t.Errorf("the client received %+v", change)
	}
	if got := controltest.Next[types.ServerChange](place); got.Allocations[0].ID != a.ID || got.Allocations[0].Port != 25565 {
		t.Errorf("the new tunnel server received %+v", got)
	}
	if old.Waiting() != 0 {
		t.Error("the old tunnel server received a change before the new one is ready")
	}
	place.Send(report(2, a.ID, false))
	client.Send(report(1, a.ID, false)) // About the old tunnel server.
	client.Send(report(known, a.ID, false))
	draining := controltest.Next[types.ServerChange](old)
	if got := draining.Allocations[0]; got.ID != a.ID || got.Port != 25565 || got.DrainUntil == nil {
		t.Errorf("the old tunnel server received %+v", got)
	}
	old.Send(report(draining.Revision-1, a.ID, true)) // Before it received the change.
	old.Send(report(draining.Revision, a.ID, true))
	if got := controltest.Next[types.ServerChange](old); len(got.RemovedAllocations) != 1 || got.RemovedClients[0] != clientRow.ID {
		t.Errorf("the old tunnel server received %+v", got)
	}
	if got := controltest.Next[types.ClientChange](client); got.RemovedServers[0] != oldRow.ID || got.Allocations[0].Leaving != nil {
		t.Errorf("the client received %+v", got)
	}
}

func TestHub_KeepsReportsWhenAMoveIsUndone(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, oldRow, newRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a := allocate(t, d, clientRow, oldRow, "tcp", 25565)
	old, place := r.connect(t, oldRow), r.connect(t, newRow)
	controltest.Next[types.ServerSnapshot](old)
	controltest.Next[types.ServerSnapshot](place)
	old.Send(report(1, a.ID, false))
	controltest.Eventually(t, "it is reported", func() bool { return allocation(t, d, a.ID).ServerState == db.StateReady })
	// The old tunnel server receives no change, and so does not report again.
	for _, to := range []uuid.UUID{newRow.ID, oldRow.ID} {
		if _, err := d.UpdateAllocation(t.Context(), everything, a.ID, db.AllocationPatch{
			Move: &db.Move{ServerID: to, KeepPortFrom: 1, Linger: time.Hour},
		}); err != nil {
			t.Fatal(err)
		}
	}
	controltest.Eventually(t, "it is known to be ready", func() bool { return allocation(t, d, a.ID).ServerState == db.StateReady })
	if old.Waiting() != 0 {
		t.Error("the old tunnel server received a change")
	}
}

func TestHub_AdvancesDrainsAndStoresWhatIsReported(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow, otherRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a := allocate(t, d, clientRow, serverRow, "tcp", 25565)
	server, other := r.connect(t, serverRow), r.connect(t, otherRow)
	controltest.Next[types.ServerSnapshot](server)
	controltest.Next[types.ServerSnapshot](other)
	players := 3
	server.Send(types.StatusReport{Type: types.TypeStatus, Revision: 1, Allocations: []types.AllocationReport{}, Players: &players})
	controltest.Eventually(t, "the players are known", func() bool {
		now := device(t, d, serverRow)
		return now.Players != nil && *now.Players == players
	})
	if _, err := d.DrainServer(t.Context(), everything, serverRow.ID, 0, true); err != nil {
		t.Fatal(err)
	}
	r.tick(time.Second)
	if got := controltest.Next[types.ServerChange](other); got.Allocations[0].ID != a.ID {
		t.Errorf("the other tunnel server received %+v", got)
	}
	r.tick(time.Second) // The limit has passed.
	for gone := false; !gone; {
		gone = len(controltest.Next[types.ServerChange](server).RemovedAllocations) == 1
	}
	if got := device(t, d, serverRow); got.ServerState != db.ServerDraining {
		t.Errorf("with three players it is %s", got.ServerState)
	}
	players = 0
	server.Send(types.StatusReport{Type: types.TypeStatus, Revision: 2, Allocations: []types.AllocationReport{}, Players: &players})
	controltest.Eventually(t, "it has drained", func() bool { return device(t, d, serverRow).ServerState == db.ServerDrained })
}
