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
