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

// subject is what a report describes. If any field changes, earlier reports no longer
// apply. The device receives the change too, and reports again.
type subject struct {
	server     uuid.UUID // For an allocation of a client,
	target     string    // and the address of its local target.
	client     uuid.UUID // For an allocation of a tunnel server.
	protocol   types.Protocol
	port       int
	drainUntil time.Time // Zero if the port does not drain.
	refusal    string    // Why the tunnel server does not get the allocation; empty if it does.
}

// binding is an allocation that a device may report on.
type binding struct {
	subject
	pending bool // The database has no report on it.
}

// knownAllocation is an allocation that was sent to the device.
type knownAllocation struct {
	binding
	since types.Revision // The first revision that contained it.
	last  *db.Report     // The device's last report; nil if none.
}

// reportBatch is what one write stores of a device's reports.
type reportBatch struct {
	rows    []db.Report
	drained []db.DrainedPort
	players *int

	refusals []db.PortRefusals
}

func (u reportBatch) empty() bool {
	return len(u.rows)+len(u.drained)+len(u.refusals) == 0 && u.players == nil
}

// reports queues a device's reports for the database. One write is in flight at a time.
// The queue keeps only the latest report on each allocation, and the sums of what it has
// refused, so that it is bounded while the database is unavailable.
type reports struct {
	storer *worker // Runs store; woken when something is queued.

	mu      sync.Mutex
	known   map[int64]knownAllocation // Allocations that were sent to the device.
	waiting map[int64]db.Report
	drained map[int64]db.DrainedPort
	players *int

	refusals map[openPort]db.Refusals
}

func newReports() *reports {
	return &reports{
		storer:   newWorker(),
		waiting:  map[int64]db.Report{},
		drained:  map[int64]db.DrainedPort{},
		refusals: map[openPort]db.Refusals{},
	}
}

// expect sets the allocations that the device may report on, as of a revision. A device
// reports each state once. If the database has lost a report, as when an allocation
// moved away and back before either end noticed, expect queues it again. On an allocation
// that the device does not get, expect itself reports that it has failed.
func (r *reports) expect(revision types.Revision, bindings map[int64]binding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make(map[int64]knownAllocation, len(bindings))
	for id, b := range bindings {
		e := knownAllocation{binding: b, since: revision}
		was, ok := r.known[id]
		same := ok && was.subject == b.subject
		_, newer := r.waiting[id]
		switch {
		case same:
			e.since, e.last = was.since, was.last
		case b.refusal != "":
			e.last = &db.Report{AllocationID: id, State: db.StateFailed, Reason: b.refusal}
			newer = false // What waits is about a port that is closed now.
		}
		known[id] = e
		if e.last != nil && !newer && (e.pending || !same) {
			r.waiting[id] = *e.last
		}
	}
	r.known = known
	if len(r.waiting) > 0 {
		r.storer.wake()
	}
}

// add queues a device's report. It ignores allocations that were not sent to the
// device, and those that have changed since the report's revision.
func (r *reports) add(report types.StatusReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range report.Allocations {
		e, ok := r.known[a.ID]
		if !ok || e.refusal != "" || report.Revision < e.since {
			continue
		}
		row := db.Report{AllocationID: a.ID, State: string(a.State)}
		if a.Reason != nil {
			row.Reason = *a.Reason
		}
		if e.server != uuid.Nil {
			row.ServerID = &e.server
		}
		if a.Target != nil {
			row.Target = string(*a.Target)
		}
		if a.TargetReason != nil && row.Target == db.TargetDown {
			row.TargetReason = *a.TargetReason
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
	r.addRefusals(report)
	if len(r.waiting)+len(r.refusals) > 0 || r.players != nil {
		r.storer.wake()
	}
}

func (r *reports) take() reportBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := reportBatch{players: r.players}
	for _, row := range r.waiting {
		b.rows = append(b.rows, row)
	}
	for _, port := range r.drained {
		b.drained = append(b.drained, port)
	}
	for of, refused := range r.refusals {
		b.refusals = append(b.refusals, db.PortRefusals{AllocationID: of.allocation, Port: of.port, Refusals: refused})
	}
	clear(r.waiting)
	clear(r.drained)
	clear(r.refusals)
	r.players = nil
	return b
}

// restore queues again what could not be stored, except where a newer report has
// arrived.
func (r *reports) restore(b reportBatch) {
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
	for _, of := range b.refusals {
		r.refuse(openPort{of.AllocationID, of.Port}, of.Refusals)
	}
	if r.players == nil {
		r.players = b.players
	}
	r.storer.wake()
}

// store writes the queued reports. Once ctx has ended it drops them: the device is offline
// by then and reports everything again when it reconnects.
func (r *reports) store(ctx context.Context, log *slog.Logger, save func(context.Context, reportBatch) error) {
	var retry backoff.Exponential
	failing := false
	for {
		b := r.take()
		if b.empty() {
			return
		}
		err := save(ctx, b)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			retry.Reset()
			failing = false
			continue
		}
		if !failing {
			failing = true
			log.WarnContext(ctx, "status reports not stored yet", slog.Any("error", err))
		}
		r.restore(b)
		if retry.Wait(ctx) != nil {
			return
		}
	}
}
