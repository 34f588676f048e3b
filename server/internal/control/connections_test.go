package control_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

func idOf(number int64) string { return fmt.Sprintf("%016x", uint64(number)) }

// openedAt is a connection to an allocation, by its number.
func openedAt(a db.Allocation, number int64) types.OpenedConnection {
	return types.OpenedConnection{ID: idOf(number), AllocationID: a.ID, SourceAddress: "203.0.113.60", SourcePort: 51820, Since: time.Now()}
}

// players reports connections, of which the list is complete.
func players(peer *controltest.Peer, opened []types.OpenedConnection, closed ...types.ConnectionCounters) {
	complete := true
	peer.Send(types.ConnectionsReport{
		Type: types.TypeConnections, Opened: opened, Updated: []types.ConnectionCounters{}, Closed: append([]types.ConnectionCounters{}, closed...), Complete: &complete,
	})
}

func awaitConnections(t *testing.T, d *db.DB, want ...int64) {
	t.Helper()
	controltest.Eventually(t, fmt.Sprintf("the connections are %v", want), func() bool {
		rows, err := d.Connections(t.Context(), db.Scope{All: true}, db.ConnectionFilter{}, db.Page[db.ConnectionPosition]{})
		if err != nil {
			t.Fatal(err)
		}
		got := []int64{}
		for _, row := range rows {
			got = append(got, row.Number)
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

func TestHub_KnowsWhoIsConnectedAcrossReplicas(t *testing.T) {
	d := dbtest.New(t)
	one, two := startReplica(t, d), startReplica(t, d)
	client, server, other := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a, b := allocate(t, d, client, server, "tcp", 20000), allocate(t, d, client, other, "udp", 20000)
	peer := one.connect(t, server)
	if snapshot := controltest.Next[types.ServerSnapshot](peer); snapshot.Connections == nil || !*snapshot.Connections {
		t.Fatalf("the snapshot says %v", snapshot.Connections)
	}
	// Not one to an allocation that the tunnel server was not sent.
	players(peer, []types.OpenedConnection{openedAt(a, 1), openedAt(a, 2), openedAt(b, 3)}, types.ConnectionCounters{ID: idOf(9)})
	awaitConnections(t, d, 1, 2)

	// On another replica what has ended meanwhile is gone, once the list is complete.
	peer = two.connect(t, server)
	controltest.Next[types.ServerSnapshot](peer)
	players(peer, []types.OpenedConnection{openedAt(a, 2), openedAt(a, 4)})
	awaitConnections(t, d, 2, 4)
	peer.Send(types.ConnectionsReport{
		Type: types.TypeConnections, Opened: []types.OpenedConnection{openedAt(a, 5)},
		Updated: []types.ConnectionCounters{{ID: idOf(2), DownloadBytes: 70, UploadBytes: 80}, {ID: idOf(3), DownloadBytes: 1}},
		Closed:  []types.ConnectionCounters{{ID: idOf(4), DownloadBytes: 9}},
	})
	awaitConnections(t, d, 2, 5)
	row, err := d.Connection(t.Context(), db.Scope{All: true}, server.ID, 2)
	if err != nil || row.DownloadBytes != 70 || row.UploadBytes != 80 {
		t.Errorf("it carried %+v, %v", row, err)
	}
}

func TestHub_CutsOffAtTheReplicaOfTheTunnelServer(t *testing.T) {
	d := dbtest.New(t)
	one, two := startReplica(t, d), startReplica(t, d)
	client, server := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	a := allocate(t, d, client, server, "tcp", 20000)
	peer := one.connect(t, server)
	controltest.Next[types.ServerSnapshot](peer)
	players(peer, []types.OpenedConnection{openedAt(a, 1), openedAt(a, -2)})
	awaitConnections(t, d, -2, 1)

	began := time.Now()
	closeConnection(t, d, server.ID, -2, time.Hour)
	change := controltest.Next[types.ServerChange](peer)
	if kept := change.Allocations[0].KeptOut; kept == nil || (*kept)[0].Source != "203.0.113.60" || time.Until((*kept)[0].Until) < 59*time.Minute {
		t.Errorf("keeps out %v", kept)
	}
	if m := controltest.Next[types.ConnectionsClose](peer); !slices.Equal(m.Ids, []string{idOf(-2)}) {
		t.Errorf("closes %v", m.Ids)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("after %v", took)
	}
	// The tunnel server is lost before it has done so, and comes to another replica: both are sent again.
	peer = two.connect(t, server)
	snapshot := controltest.Next[types.ServerSnapshot](peer)
	if snapshot.Allocations[0].KeptOut == nil {
		t.Error("the next snapshot keeps nobody out")
	}
	if m := controltest.Next[types.ConnectionsClose](peer); !slices.Equal(m.Ids, []string{idOf(-2)}) {
		t.Errorf("closes %v", m.Ids)
	}
	players(peer, []types.OpenedConnection{openedAt(a, 1), openedAt(a, -2)})
	peer.Send(types.ConnectionsReport{
		Type: types.TypeConnections, Opened: []types.OpenedConnection{}, Updated: []types.ConnectionCounters{},
		Closed: []types.ConnectionCounters{{ID: idOf(-2)}},
	})
	awaitConnections(t, d, 1)
	closeConnection(t, d, server.ID, 1, 0)
	if m := controltest.Next[types.ConnectionsClose](peer); !slices.Equal(m.Ids, []string{idOf(1)}) {
		t.Errorf("closes %v", m.Ids)
	}
}

func closeConnection(t *testing.T, d *db.DB, server uuid.UUID, number int64, keepOut time.Duration) {
	t.Helper()
	if err := d.CloseConnection(t.Context(), db.Scope{All: true}, server, number, keepOut); err != nil {
		t.Fatal(err)
	}
}
