package control_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// stalled is a database in which the first Connect waits for the test.
type stalled struct {
	*db.DB
	first        atomic.Bool
	begun, admit chan struct{}
}

func (s *stalled) Connect(ctx context.Context, device uuid.UUID, hello db.Hello) (int64, error) {
	if s.first.CompareAndSwap(false, true) {
		close(s.begun)
		<-s.admit
	}
	return s.DB.Connect(ctx, device, hello)
}

func TestHub_DeadChannelStoredLateDoesNotStopTheAgent(t *testing.T) {
	store := &stalled{DB: dbtest.New(t), begun: make(chan struct{}), admit: make(chan struct{})}
	r := startReplica(t, store.DB, func(o *control.Options) { o.Store = store })
	row := enroll(t, store.DB, db.KindClient)
	dead := r.connect(t, row)
	<-store.begun
	dead.WS.Close() // The agent restarts
	live := r.connect(t, row)
	controltest.Next[types.ClientSnapshot](live) // and is served again.
	close(store.admit)
	if code := live.Closed(controltest.Patience); code != channel.CloseRestarting {
		t.Errorf("the live channel was closed with %d", code)
	}
}

// standBy opens a channel that must not replace another one.
func (r *replica) standBy(t *testing.T, row db.Device) *controltest.Peer {
	t.Helper()
	p := r.dial(t, row)
	yes := true
	p.Send(types.Hello{Type: types.TypeHello, AgentVersion: "0.0.0-test", Platform: "test/test", IfOffline: &yes})
	return p
}

func TestHub_StandbyConnectsOnlyOnceTheDeviceIsOffline(t *testing.T) {
	d := dbtest.New(t)
	here, there := startReplica(t, d), startReplica(t, d)
	row := enroll(t, d, db.KindClient)
	newer := here.connect(t, row)
	controltest.Next[types.ClientSnapshot](newer)
	for name, r := range map[string]*replica{"on the same replica": here, "on another": there} {
		if code := r.standBy(t, row).Closed(controltest.Patience); code != channel.CloseTakenOver {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
	if !newer.Open() || !device(t, d, row).Online {
		t.Fatal("the connection that was there is gone")
	}
	newer.WS.Close()
	controltest.Eventually(t, "device offline", func() bool { return !device(t, d, row).Online })
	older := there.standBy(t, row)
	controltest.Next[types.ClientSnapshot](older)
	if code := here.standBy(t, row).Closed(controltest.Patience); code != channel.CloseTakenOver {
		t.Errorf("a second one that stood by: closed with %d", code)
	}
	// From then on it is like any other.
	controltest.Next[types.ClientSnapshot](here.connect(t, row))
	if code := older.Closed(controltest.Patience); code != channel.CloseTakenOver {
		t.Errorf("closed with %d", code)
	}
}
