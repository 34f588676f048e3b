package db_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// holding is a number of requests that hold or wait for connections.
type holding struct {
	t       *testing.T
	d       *db.DB
	calls   sync.WaitGroup
	release chan struct{} // Each value ends the transaction of one that holds a connection.
	order   chan string   // The sources that got a connection, in order.
	busy    atomic.Int64
}

// holdRequests occupies the connections of requests until the test ends.
func holdRequests(t *testing.T, d *db.DB) *holding {
	t.Helper()
	d.SetStatementTimeout(6 * await.Timeout)
	d.SetRequestWait(6 * await.Timeout)
	return &holding{t: t, d: d, release: make(chan struct{}), order: make(chan string, 2000)}
}

// from makes n requests of a source, and waits until all of them hold or wait for a connection.
func (h *holding) from(source string, n int) {
	h.t.Helper()
	before := h.occupied()
	ctx := db.WithSource(h.t.Context(), netip.MustParsePrefix(source))
	for range n {
		h.calls.Go(func() {
			err := h.d.InTransaction(ctx, func(again func() error) error {
				h.order <- source
				select {
				case <-h.release:
					return again()
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if errors.Is(err, db.ErrBusy) {
				h.busy.Add(1)
			} else if err != nil && !errors.Is(err, context.Canceled) {
				h.t.Errorf("%s: %v", source, err)
			}
		})
	}
	await.Until(h.t, "requests hold or wait for connections", func() bool { return h.occupied() == before+int64(n) })
}

func (h *holding) occupied() int64 {
	lane := h.d.PoolStats().Lanes[db.LaneRequests]
	return int64(lane.InUse+lane.Waiting) + h.busy.Load()
}

func (h *holding) end() {
	close(h.release)
	h.calls.Wait()
}

func TestLanes_RequestsTakeNoConnectionOfDevicesLeasesAndPings(t *testing.T) {
	d := dbtest.New(t)
	replica := uuid.New()
	check(t, d.RenewLease(t.Context(), replica, time.Minute))
	device := enroll(t, d, db.KindClient, nil)
	h := holdRequests(t, d)
	h.from("192.0.2.1/32", 40)
	h.from("2001:db8::/64", 40)

	for name, call := range map[string]func(ctx context.Context) error{
		"ping":  d.Ping,
		"lease": func(ctx context.Context) error { return d.RenewLease(ctx, replica, time.Minute) },
		"device's token": func(ctx context.Context) error {
			_, err := d.DeviceByID(ctx, device.ID)
			return err
		},
		"connect": func(ctx context.Context) error {
			_, err := d.Connect(ctx, device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica})
			return err
		},
		"state": func(ctx context.Context) error {
			_, err := d.ClientState(ctx, device.ID)
			return err
		},
		"reports": func(ctx context.Context) error { return d.SaveReports(ctx, device.ID, db.KindClient, nil) },
		"upkeep": func(ctx context.Context) error {
			_, _, err := d.Maintain(ctx, db.Maintenance{})
			return err
		},
		"keys": func(ctx context.Context) error {
			_, err := d.SigningKeys(ctx)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), await.Timeout)
		if err := call(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	if stats := d.PoolStats(); stats.Lanes[db.LaneRequests].InUse >= stats.Max/2 || stats.Max != 16 {
		t.Errorf("requests have %+v", stats)
	}
	h.end()
}

func TestLanes_DevicesTakeNoConnectionOfLeasesAndPings(t *testing.T) {
	d := dbtest.New(t)
	replica := uuid.New()
	d.SetStatementTimeout(6 * await.Timeout)
	release := d.HoldDevices(t.Context(), 40)
	defer release()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), await.Timeout)
		if err := errors.Join(d.Ping(ctx), d.RenewLease(ctx, replica, time.Minute), d.ReleaseReplica(ctx, replica)); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

func TestLanes_SourcesOfRequestsTakeTurns(t *testing.T) {
	d := dbtest.New(t)
	h := holdRequests(t, d)
	h.from("192.0.2.1/32", 100)
	free := d.PoolStats().Lanes[db.LaneRequests]
	if free.InUse >= free.Max {
		t.Errorf("one source has all %d connections", free.Max)
	}
	h.from("198.51.100.1/32", free.Max) // The rest, and some wait.
	h.from("203.0.113.1/32", 1)
	h.from("2001:db8::/64", 1)
	for range free.Max {
		<-h.order
	}
	seen := map[string]bool{}
	for range 4 {
		h.release <- struct{}{}
		seen[<-h.order] = true
	}
	if !seen["203.0.113.1/32"] || !seen["2001:db8::/64"] || !seen["198.51.100.1/32"] {
		t.Errorf("of four turns, these had some: %v", seen)
	}
	h.end()
}

func TestLanes_WaitingRequestsAreBoundedAndTheBusiestSourceIsRefused(t *testing.T) {
	d := dbtest.New(t)
	h := holdRequests(t, d)
	h.from("192.0.2.1/32", 300)
	h.from("198.51.100.1/32", 500)
	if h.busy.Load() == 0 {
		t.Fatal("none was refused")
	}
	refused := h.busy.Load()
	for i := range 5 {
		h.from(fmt.Sprintf("203.0.113.%d/32", i), 1)
	}
	if h.busy.Load() != refused+5 {
		t.Errorf("%d more were refused", h.busy.Load()-refused)
	}
	if stats := d.PoolStats().Lanes[db.LaneRequests]; stats.Refused != h.busy.Load() {
		t.Errorf("%d are counted as refused of %d", stats.Refused, h.busy.Load())
	}
	h.end()
	got := map[string]bool{}
	for len(h.order) > 0 {
		got[<-h.order] = true
	}
	for i := range 5 {
		if !got[fmt.Sprintf("203.0.113.%d/32", i)] {
			t.Errorf("source %d was refused", i)
		}
	}
}

func TestLanes_AWaitThatIsTooLongEndsInErrBusy(t *testing.T) {
	d := dbtest.New(t)
	h := holdRequests(t, d)
	d.SetRequestWait(10 * time.Millisecond)
	h.from("192.0.2.1/32", 5)
	h.from("198.51.100.1/32", 2)
	if _, err := d.UserByID(t.Context(), 1); !errors.Is(err, db.ErrBusy) || db.Unavailable(err) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.UserByID(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that leaves: %v", err)
	}
	h.end()
	d.SetRequestWait(await.Timeout)
	if _, err := d.UserByID(t.Context(), 1); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("afterwards: %v", err)
	}
	if stats := d.PoolStats().Lanes[db.LaneRequests]; stats.InUse != 0 || stats.Waiting != 0 {
		t.Errorf("afterwards: %+v", stats)
	}
}
