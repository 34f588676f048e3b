package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/channel"
)

// reports are what a device last said of each of its allocations and is not
// stored yet. One write is in flight at a time; what arrives meanwhile waits,
// and only the latest of each allocation. Its size is bounded by the device's
// allocations, however long the database is away.
type reports struct {
	wake chan struct{} // One slot: waiting holds something.

	mu      sync.Mutex
	known   map[int64]struct{} // Allocations that the device has been told of.
	waiting map[int64]db.Report
}

func newReports() *reports {
	return &reports{wake: make(chan struct{}, 1), waiting: map[int64]db.Report{}}
}

// expect says which allocations the device may report on from now on.
func (r *reports) expect(known map[int64]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = known
}

// add takes a device's report. What it says of allocations it was not told of
// is left out.
func (r *reports) add(report types.StatusReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range report.Allocations {
		if _, ok := r.known[a.ID]; !ok {
			continue
		}
		row := db.Report{AllocationID: a.ID, State: string(a.State)}
		if a.Reason != nil {
			row.Reason = *a.Reason
		}
		r.waiting[a.ID] = row
	}
	if len(r.waiting) > 0 {
		signal(r.wake)
	}
}

func (r *reports) take() []db.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := make([]db.Report, 0, len(r.waiting))
	for _, row := range r.waiting {
		rows = append(rows, row)
	}
	clear(r.waiting)
	return rows
}

// giveBack returns rows that could not be stored; what has arrived since is
// newer and stays.
func (r *reports) giveBack(rows []db.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if _, newer := r.waiting[row.AllocationID]; !newer {
			r.waiting[row.AllocationID] = row
		}
	}
	signal(r.wake)
}

// store writes reports until ctx ends. Those that wait then are dropped: the
// device is offline, and says everything again when it is back.
func (r *reports) store(ctx context.Context, log *slog.Logger, save func(context.Context, []db.Report) error) {
	var backoff channel.Backoff
	failing := false
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		rows := r.take()
		if len(rows) == 0 {
			continue
		}
		err := save(ctx, rows)
		if err == nil {
			backoff.Reset()
			failing = false
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if !failing {
			failing = true
			log.WarnContext(ctx, "status reports wait for the database", slog.Any("error", err))
		}
		r.giveBack(rows)
		if !pause(ctx, backoff.Next()) {
			return
		}
	}
}

// signal fills a one-slot channel that says "there is something to do".
func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// pause waits, and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
