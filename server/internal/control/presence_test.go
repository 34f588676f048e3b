package control_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// slowReconcile is a database in which a reconciliation waits for the test.
type slowReconcile struct {
	*db.DB
	waits, admit chan struct{}
	done         chan struct{}
}

func (c *slowReconcile) ReconcilePresence(ctx context.Context, replica uuid.UUID, connected func() []uuid.UUID) error {
	defer close(c.done)
	close(c.waits)
	return c.DB.ReconcilePresence(ctx, replica, func() []uuid.UUID {
		ids := connected()
		<-c.admit
		return ids
	})
}

func (c *slowReconcile) Disconnect(context.Context, uuid.UUID, int64, string) error { return errDown }

func TestHub_ReconciliationKeepsDevicesThatConnectMeanwhile(t *testing.T) {
	store := &slowReconcile{DB: dbtest.New(t), waits: make(chan struct{}), admit: make(chan struct{}), done: make(chan struct{})}
	r := startReplica(t, store.DB, func(o *control.Options) { o.Store = store })
	gone, late := enroll(t, store.DB, db.KindClient), enroll(t, store.DB, db.KindClient)
	peer := r.connect(t, gone)
	controltest.Next[types.ClientSnapshot](peer)
	peer.WS.Close()
	controltest.Eventually(t, "a reconciliation is due", func() bool {
		r.tick(5 * time.Second)
		select {
		case <-store.waits:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	controltest.Next[types.ClientSnapshot](r.connect(t, late))
	close(store.admit)
	<-store.done
	if !device(t, store.DB, late).Online {
		t.Error("a connected device was taken offline")
	}
}
