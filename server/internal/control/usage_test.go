package control_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// used is a report of the bytes of allocations.
func used(epoch uuid.UUID, sequence int64, allocations ...types.AllocationUsage) types.UsageReport {
	return types.UsageReport{Type: types.TypeUsage, Epoch: epoch, Sequence: sequence, Seconds: 10, Allocations: allocations}
}

func carried(a db.Allocation, bytes int64) types.AllocationUsage {
	return types.AllocationUsage{ID: a.ID, Players: 1, PeakPlayers: 2, Joins: 3, DownloadBytes: bytes, UploadBytes: 2 * bytes, DownloadDatagrams: 5, UploadDatagrams: 6}
}

// wantDownload returns once an allocation has carried so many bytes in the last day.
func wantDownload(t *testing.T, d *db.DB, a db.Allocation, bytes int64) {
	t.Helper()
	rows, err := d.Usage(t.Context(), db.Scope{All: true}, db.UsageQuery{
		By: db.UsageByAllocation, Resolution: db.UsageDays, From: time.Now().Add(-48 * time.Hour), To: time.Now().Add(time.Hour),
		AllocationID: a.ID, Limit: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got int64
	for _, row := range rows {
		got += row.DownloadBytes
	}
	if got != bytes {
		t.Errorf("allocation %d has carried %d bytes, want %d", a.ID, got, bytes)
	}
}

// failing is a database that does not take usage while it fails.
type failing struct {
	*db.DB
	fails atomic.Bool
	tried chan struct{}
}

func (f *failing) AddUsage(ctx context.Context, server uuid.UUID, report db.UsageReport) error {
	if f.fails.Load() {
		select {
		case f.tried <- struct{}{}:
		default:
		}
		return errDown
	}
	return f.DB.AddUsage(ctx, server, report)
}

func wantStored(t *testing.T, peer *controltest.Peer, epoch uuid.UUID, sequence int64) {
	t.Helper()
	if ack := controltest.Next[types.UsageAck](peer); ack.Epoch != epoch || ack.Sequence != sequence {
		t.Errorf("acknowledged %+v, want %d of %s", ack, sequence, epoch)
	}
}

func TestHub_AddsUpUsageOnce(t *testing.T) {
	store := &failing{DB: dbtest.New(t), tried: make(chan struct{}, 1)}
	d := store.DB
	one := startReplica(t, d, func(o *control.Options) { o.Store = store })
	two := startReplica(t, d)
	client, server, other := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer), enroll(t, d, db.KindServer)
	a, b := allocate(t, d, client, server, "tcp", 20000), allocate(t, d, client, other, "udp", 20000)
	peer := one.connect(t, server)
	if snapshot := controltest.Next[types.ServerSnapshot](peer); snapshot.Usage == nil || !*snapshot.Usage {
		t.Error("the panel does not say that it takes usage")
	}
	epoch := uuid.New()
	peer.Send(used(epoch, 1, carried(a, 100), carried(b, 1_000_000))) // b is not on this tunnel server.
	wantStored(t, peer, epoch, 1)
	peer.Send(used(epoch, 1, carried(a, 100)))
	wantStored(t, peer, epoch, 1)
	wantDownload(t, d, a, 100)
	wantDownload(t, d, b, 0)

	// What is not stored when the channel ends is stored on another replica.
	store.fails.Store(true)
	peer.Send(used(epoch, 2, carried(a, 20)))
	<-store.tried
	peer = two.connect(t, server)
	controltest.Next[types.ServerSnapshot](peer)
	peer.Send(used(epoch, 2, carried(a, 20)))
	wantStored(t, peer, epoch, 2)
	next := uuid.New() // Another process.
	peer.Send(used(next, 1, carried(a, 3)))
	wantStored(t, peer, next, 1)
	wantDownload(t, d, a, 123)

	// What an allocation had carried before it was deleted is counted.
	if err := d.DeleteAllocation(t.Context(), db.Scope{All: true}, a.ID); err != nil {
		t.Fatal(err)
	}
	controltest.Next[types.ServerChange](peer)
	peer.Send(used(next, 2, carried(a, 4)))
	wantStored(t, peer, next, 2)
	wantDownload(t, d, a, 127)
}

func TestHub_RefusesUsageThatCannotBe(t *testing.T) {
	d := dbtest.New(t)
	r := startReplica(t, d)
	client, server := enroll(t, d, db.KindClient), enroll(t, d, db.KindServer)
	a := allocate(t, d, client, server, "tcp", 20000)
	for name, report := range map[string]types.UsageReport{
		"negative":  used(uuid.New(), 1, carried(a, -1)),
		"too much":  used(uuid.New(), 1, carried(a, 1<<50+1)),
		"no number": used(uuid.New(), 0, carried(a, 1)),
		"many":      used(uuid.New(), 1, make([]types.AllocationUsage, 1001)...),
	} {
		peer := r.connect(t, server)
		controltest.Next[types.ServerSnapshot](peer)
		peer.Send(report)
		if code := peer.Closed(controltest.Patience); code != 1008 {
			t.Errorf("%s: closed with %d", name, code)
		}
	}
	agent := r.connect(t, client)
	controltest.Next[types.ClientSnapshot](agent)
	agent.Send(used(uuid.New(), 1, carried(a, 1)))
	if code := agent.Closed(controltest.Patience); code != 1008 {
		t.Errorf("of a tunnel client: closed with %d", code)
	}
}
