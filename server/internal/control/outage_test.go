package control_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

var errDown = errors.New("the database is down")

// unsteady is a database that can be down, except for its events.
type unsteady struct {
	*db.DB
	down atomic.Bool
	lost chan struct{} // Receives for each Disconnect while the database is down.
}

func (u *unsteady) Connect(ctx context.Context, device uuid.UUID, hello db.Hello) (int64, error) {
	if u.down.Load() {
		return 0, errDown
	}
	return u.DB.Connect(ctx, device, hello)
}

func (u *unsteady) Disconnect(ctx context.Context, device uuid.UUID, generation int64, reason string) error {
	if u.down.Load() {
		u.lost <- struct{}{}
		return errDown
	}
	return u.DB.Disconnect(ctx, device, generation, reason)
}

func (u *unsteady) Channels(ctx context.Context, devices []uuid.UUID) (map[uuid.UUID]db.Channel, error) {
	if u.down.Load() {
		return nil, errDown
	}
	return u.DB.Channels(ctx, devices)
}

func (u *unsteady) SaveReports(ctx context.Context, device uuid.UUID, kind string, reports []db.Report) error {
	if u.down.Load() {
		return errDown
	}
	return u.DB.SaveReports(ctx, device, kind, reports)
}

func startUnsteady(t *testing.T) (*replica, *unsteady) {
	t.Helper()
	store := &unsteady{DB: dbtest.New(t), lost: make(chan struct{}, 1)}
	return startReplica(t, store.DB, func(o *control.Options) { o.Store = store }), store
}

func TestHub_ChannelsOutliveTheDatabase(t *testing.T) {
	r, store := startUnsteady(t)
	clientRow, serverRow := enroll(t, store.DB, db.KindClient), enroll(t, store.DB, db.KindServer)
	first := allocate(t, store.DB, clientRow, serverRow, "tcp", 20001)
	client := r.connect(t, clientRow)
	controltest.Next[types.ClientSnapshot](client)

	store.down.Store(true)
	second := allocate(t, store.DB, clientRow, serverRow, "tcp", 20002)
	client.Send(types.StatusReport{Type: types.TypeStatus, Revision: 1, Allocations: []types.AllocationReport{
		{ID: first.ID, State: types.ReportReady},
	}})
	if code := r.connect(t, serverRow).Closed(controltest.Patience); code != websocket.CloseTryAgainLater {
		t.Errorf("a new channel closed with %d", code)
	}
	if !client.Open() {
		t.Fatal("the channel ended")
	}

	store.down.Store(false)
	if got := controltest.Next[types.ClientChange](client); len(got.Allocations) != 1 || got.Allocations[0].ID != second.ID {
		t.Errorf("change %+v", got)
	}
	controltest.Eventually(t, "the report is stored", func() bool {
		return allocation(t, store.DB, first.ID).ClientState == db.StateReady
	})
}

func TestHub_ReconcilesAfterAFailedDisconnect(t *testing.T) {
	r, store := startUnsteady(t)
	gone, staying := enroll(t, store.DB, db.KindClient), enroll(t, store.DB, db.KindClient)
	peer := r.connect(t, gone)
	controltest.Next[types.ClientSnapshot](peer)
	controltest.Next[types.ClientSnapshot](r.connect(t, staying))

	store.down.Store(true)
	peer.WS.Close()
	<-store.lost
	store.down.Store(false)
	controltest.Eventually(t, "device offline", func() bool {
		r.tick(5 * time.Second)
		return !device(t, store.DB, gone).Online
	})
	if !device(t, store.DB, staying).Online {
		t.Error("a connected device was taken offline")
	}
}

func TestHub_ReloadsEverythingAfterALostListener(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	clientRow, serverRow := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	allocate(t, d, clientRow, serverRow, "tcp", 20001)
	client := r.connect(t, clientRow)
	controltest.Next[types.ClientSnapshot](client)

	// A change without an event, as if it were made while the listener was down.
	connections := dbtest.SQL(t, d)
	if _, err := connections.ExecContext(t.Context(), `UPDATE allocations SET local_port = 4242`); err != nil {
		t.Fatal(err)
	}
	_, err := connections.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND (query ILIKE 'LISTEN%' OR query = '')`) // Its query is empty once it was pinged.
	if err != nil {
		t.Fatal(err)
	}
	if got := controltest.Next[types.ClientChange](client); len(got.Allocations) != 1 || got.Allocations[0].LocalPort != 4242 {
		t.Errorf("change %+v", got)
	}
}

// faulty is a database that panics for some devices.
type faulty struct {
	*db.DB
	device uuid.UUID
}

func (f *faulty) Connect(ctx context.Context, device uuid.UUID, hello db.Hello) (int64, error) {
	if device == f.device {
		panic("a mistake")
	}
	return f.DB.Connect(ctx, device, hello)
}

func TestHub_PanicEndsOnlyItsOwnChannel(t *testing.T) {
	d := dbtest.New(t)
	unlucky, lucky := enroll(t, d, db.KindClient), enroll(t, d, db.KindClient)
	r := startReplica(t, d, func(o *control.Options) { o.Store = &faulty{d, unlucky.ID} })
	before, failing, after := r.connect(t, lucky), r.connect(t, unlucky), r.connect(t, enroll(t, d, db.KindClient))
	if code := failing.Closed(controltest.Patience); code != websocket.CloseInternalServerErr {
		t.Errorf("closed with %d", code)
	}
	controltest.Next[types.ClientSnapshot](before)
	controltest.Next[types.ClientSnapshot](after)
}
