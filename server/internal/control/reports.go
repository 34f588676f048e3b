package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

// about is what a report is about: once it is another, an earlier report says
// nothing of it. All of it is sent to the device, which reports anew.
type about struct {
	server     uuid.UUID // Of a client's allocation,
	client     uuid.UUID // and of a tunnel server's.
	protocol   types.Protocol
	port       int
	drainUntil time.Time // Zero where it does not drain.
}

// binding is an allocation that a device may report on.
type binding struct {
	about
	pending bool // The database has no report of it.
}

// expected is a binding, since which revision the device knows of it, and what
// it has said of it.
type expected struct {
	binding
	since types.Revision
	last  *db.Report
}

// unsaved is what is to be written of a device's reports.
type unsaved struct {
	rows    []db.Report
	drained []db.DrainedPort
	players *int
}

func (u unsaved) empty() bool { return len(u.rows)+len(u.drained) == 0 && u.players == nil }

// reports are what a device last said of each of its allocations and is not
// stored yet. One write is in flight at a time; what arrives meanwhile waits,
// and only the latest of each allocation. Its size is bounded by the device's
// allocations, however long the database is away.
type reports struct {
	wake chan struct{} // One slot: something waits.

	mu      sync.Mutex
	known   map[int64]expected // Allocations that the device has been told of.
	waiting map[int64]db.Report
	drained map[int64]db.DrainedPort
	players *int
}

func newReports() *reports {
	return &reports{
		wake:    make(chan struct{}, 1),
		waiting: map[int64]db.Report{},
		drained: map[int64]db.DrainedPort{},
	}
}

// expect says which allocations the device may report on from now on, as of a
// revision. A device says a thing once: where the database has lost what it said,
// as when an allocation was moved away and back before either end noticed, it is
// written again.
func (r *reports) expect(revision types.Revision, bindings map[int64]binding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make(map[int64]expected, len(bindings))
	for id, b := range bindings {
		e := expected{binding: b, since: revision}
		if was, ok := r.known[id]; ok && was.about == b.about {
			e.since, e.last = was.since, was.last
		}
		known[id] = e
		if _, newer := r.waiting[id]; e.pending && e.last != nil && !newer {
			r.waiting[id] = *e.last
		}
	}
	r.known = known
	if len(r.waiting) > 0 {
		signal(r.wake)
	}
}

// add takes a device's report. What it says of allocations it was not told of, or
// has not heard the latest of, is left out.
func (r *reports) add(report types.StatusReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range report.Allocations {
		e, ok := r.known[a.ID]
		if !ok || report.Revision < e.since {
			continue
		}
		row := db.Report{AllocationID: a.ID, State: string(a.State)}
		if a.Reason != nil {
			row.Reason = *a.Reason
		}
		if e.server != uuid.Nil {
			row.ServerID = &e.server
		}
		e.last = &row
		r.known[a.ID] = e
		r.waiting[a.ID] = row
		if a.Drained != nil && *a.Drained && !e.drainUntil.IsZero() {
			r.drained[a.ID] = db.DrainedPort{AllocationID: a.ID, Until: e.drainUntil}
		}
	}
	if report.Players != nil {
		r.players = report.Players
	}
	if len(r.waiting) > 0 || r.players != nil {
		signal(r.wake)
	}
}

func (r *reports) take() unsaved {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := unsaved{players: r.players}
	for _, row := range r.waiting {
		b.rows = append(b.rows, row)
	}
	for _, port := range r.drained {
		b.drained = append(b.drained, port)
	}
	clear(r.waiting)
	clear(r.drained)
	r.players = nil
	return b
}

// restore returns what could not be stored; what has arrived since is newer and
// stays.
func (r *reports) restore(b unsaved) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range b.rows {
		if _, newer := r.waiting[row.AllocationID]; !newer {
			r.waiting[row.AllocationID] = row
		}
	}
	for _, port := range b.drained {
		if _, newer := r.drained[port.AllocationID]; !newer {
			r.drained[port.AllocationID] = port
		}
	}
	if r.players == nil {
		r.players = b.players
	}
	signal(r.wake)
}

// store writes reports until ctx ends. Those that wait then are dropped: the
// device is offline, and says everything again when it is back.
func (r *reports) store(ctx context.Context, log *slog.Logger, save func(context.Context, unsaved) error) {
	var retry backoff.Exponential
	failing := false
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		b := r.take()
		if b.empty() {
			continue
		}
		err := save(ctx, b)
		if err == nil {
			retry.Reset()
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
		r.restore(b)
		if retry.Wait(ctx) != nil {
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
