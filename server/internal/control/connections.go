package control

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

const (
	// maxConnections is how many connections of players a tunnel server may report. Further ones are not stored.
	maxConnections = 100_000
	// maxUnsaved bounds what waits for the database, which is away for long then. The channel ends, and the next one
	// brings the whole list.
	maxUnsaved = 2 * maxConnections
	// saveInterval is the least time between two times that a tunnel server's connections are stored.
	saveInterval = 250 * time.Millisecond
)

var connectionIDPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

func checkConnections(report types.ConnectionsReport) error {
	if len(report.Opened) > types.MaxConnectionsReportOpened || len(report.Updated) > types.MaxConnectionsReportUpdated ||
		len(report.Closed) > types.MaxConnectionsReportClosed {
		return policyViolation("opened, updated, closed: at most %d", types.MaxConnectionsReportOpened)
	}
	for _, o := range report.Opened {
		if err := checkCounters(countersOf(o)); err != nil {
			return err
		}
		if address, err := netip.ParseAddr(o.SourceAddress); err != nil || address.Zone() != "" {
			return policyViolation("sourceAddress: an IP address")
		}
		if o.SourcePort < 0 || o.SourcePort > types.MaxPort {
			return policyViolation("sourcePort: 0 to %d", types.MaxPort)
		}
	}
	for _, n := range slices.Concat(report.Updated, report.Closed) {
		if err := checkCounters(n); err != nil {
			return err
		}
	}
	return nil
}

func checkCounters(n types.ConnectionCounters) error {
	if !connectionIDPattern.MatchString(n.ID) {
		return policyViolation("id: 16 lower-case hexadecimal digits")
	}
	if n.DownloadBytes < 0 || n.UploadBytes < 0 {
		return policyViolation("downloadBytes, uploadBytes: at least 0")
	}
	for _, ms := range []*float32{n.PlayerRoundTripMs, n.TunnelRoundTripMs} {
		if ms != nil && (*ms < 0 || math.IsInf(float64(*ms), 0)) {
			return policyViolation("round trips: at least 0")
		}
	}
	return nil
}

func countersOf(o types.OpenedConnection) types.ConnectionCounters {
	return types.ConnectionCounters{
		ID: o.ID, DownloadBytes: o.DownloadBytes, UploadBytes: o.UploadBytes,
		PlayerRoundTripMs: o.PlayerRoundTripMs, TunnelRoundTripMs: o.TunnelRoundTripMs,
	}
}

// connectionNumber returns the number of a connection in the database, by an id that was checked.
func connectionNumber(id string) int64 {
	number, _ := strconv.ParseUint(id, 16, 64)
	return int64(number)
}

func toCounters(n types.ConnectionCounters) db.ConnectionCounters {
	return db.ConnectionCounters{
		Number: connectionNumber(n.ID), DownloadBytes: n.DownloadBytes, UploadBytes: n.UploadBytes,
		PlayerRoundTrip: n.PlayerRoundTripMs, TunnelRoundTrip: n.TunnelRoundTripMs,
	}
}

// connections are those of a tunnel server's players. They are queued for the database, where one write is in flight at
// a time. The queue has one entry for each connection at most.
type connections struct {
	storer *worker // Runs store; woken when something is queued.

	mu       sync.Mutex
	live     map[int64]struct{} // Those that were opened on this channel and not closed.
	opened   map[int64]db.OpenedConnection
	updated  map[int64]db.ConnectionCounters
	closed   map[int64]db.ConnectionCounters
	complete bool
}

func newConnections() *connections {
	c := &connections{storer: newWorker(), live: map[int64]struct{}{}}
	c.clear()
	return c
}

func (c *connections) clear() {
	c.opened, c.updated, c.closed = map[int64]db.OpenedConnection{}, map[int64]db.ConnectionCounters{}, map[int64]db.ConnectionCounters{}
	c.complete = false
}

// add queues a report. It ignores connections to allocations that the tunnel server was not sent, and what it reports
// of connections that it has not opened. It reports whether the queue has room.
func (c *connections) add(report types.ConnectionsReport, sent func(allocation int64) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range report.Opened {
		n := toCounters(countersOf(o))
		_, again := c.live[n.Number]
		if !again && len(c.live) >= maxConnections || !sent(o.AllocationID) {
			continue
		}
		address, err := netip.ParseAddr(o.SourceAddress)
		if err != nil {
			continue // It was checked.
		}
		c.live[n.Number] = struct{}{}
		c.opened[n.Number] = db.OpenedConnection{
			ConnectionCounters: n, AllocationID: o.AllocationID, Source: address.Unmap(), SourcePort: o.SourcePort, Since: o.Since,
		}
	}
	for _, n := range report.Updated {
		c.update(toCounters(n))
	}
	for _, n := range report.Closed {
		end := toCounters(n)
		if _, ok := c.live[end.Number]; !ok {
			continue
		}
		delete(c.live, end.Number)
		c.end(end)
	}
	c.complete = c.complete || report.Complete != nil && *report.Complete
	if len(c.opened)+len(c.updated)+len(c.closed) > 0 || c.complete {
		c.storer.wake()
	}
	return len(c.opened)+len(c.updated)+len(c.closed) <= maxUnsaved
}

// update is called with mu held.
func (c *connections) update(n db.ConnectionCounters) {
	if _, ok := c.live[n.Number]; !ok {
		return
	}
	if o, ok := c.opened[n.Number]; ok {
		o.ConnectionCounters = n
		c.opened[n.Number] = o
		return
	}
	c.updated[n.Number] = n
}

// end queues an end, even if the beginning is queued: that may have been stored before. It is called with mu held.
func (c *connections) end(n db.ConnectionCounters) {
	delete(c.opened, n.Number)
	delete(c.updated, n.Number)
	c.closed[n.Number] = n
}

// take empties the queue into changes, and reports whether there were any.
func (c *connections) take(generation int64) (changes db.ConnectionChanges, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changes = db.ConnectionChanges{Generation: generation, Complete: c.complete}
	for _, o := range c.opened {
		changes.Opened = append(changes.Opened, o)
	}
	for _, n := range c.updated {
		changes.Updated = append(changes.Updated, n)
	}
	for _, n := range c.closed {
		changes.Closed = append(changes.Closed, n)
	}
	any = len(changes.Opened)+len(changes.Updated)+len(changes.Closed) > 0 || changes.Complete
	c.clear()
	return changes, any
}

// restore queues changes again that could not be stored, unless there is something newer.
func (c *connections) restore(changes db.ConnectionChanges) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range changes.Closed {
		if _, again := c.opened[n.Number]; !again {
			c.closed[n.Number] = n
		}
	}
	for _, o := range changes.Opened {
		if _, ended := c.closed[o.Number]; ended {
			continue
		}
		if n, ok := c.updated[o.Number]; ok {
			o.ConnectionCounters = n
			delete(c.updated, o.Number)
		}
		if _, newer := c.opened[o.Number]; !newer {
			c.opened[o.Number] = o
		}
	}
	for _, n := range changes.Updated {
		_, ended := c.closed[n.Number]
		_, newer := c.updated[n.Number]
		if _, opened := c.opened[n.Number]; !ended && !newer && !opened {
			c.updated[n.Number] = n
		}
	}
	c.complete = c.complete || changes.Complete
	c.storer.wake()
}

// storeConnections writes what is queued, at most every saveInterval, until there is nothing or ctx ends.
func (s *session) storeConnections(ctx context.Context) {
	var retry backoff.Exponential
	failing := false
	for {
		changes, any := s.connections.take(s.generation)
		if !any {
			return
		}
		err := s.hub.opts.Store.SaveConnections(ctx, s.device, changes)
		wait := saveInterval
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				s.log.WarnContext(ctx, "connections not stored yet", slog.Any("error", err))
			}
			s.connections.restore(changes)
			wait = retry.Next()
		default:
			retry.Reset()
		}
		failing = err != nil
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// addConnections takes a report of a tunnel server. A device that is none has no players.
func (s *session) addConnections(report types.ConnectionsReport) {
	if s.connections != nil && !s.connections.add(report, s.reports.serves) {
		s.close(websocket.CloseTryAgainLater, "the panel cannot reach its database")
	}
}

// serves reports whether the device, a tunnel server, was sent an allocation.
func (r *reports) serves(allocation int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.known[allocation]
	return ok && e.refusal == ""
}

// sendCuts sends a tunnel server the connections that somebody has cut off, until it has reported their ends: those
// whose source is kept out, or the others.
func (s *session) sendCuts(ctx context.Context, keptOut bool) error {
	if s.kind != types.DeviceKindServer {
		return nil
	}
	numbers, err := s.hub.opts.Store.CutConnections(ctx, s.device, keptOut)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(numbers, types.MaxConnectionsCloseIds) {
		message := types.ConnectionsClose{Type: types.TypeConnectionsClose}
		for _, number := range part {
			message.Ids = append(message.Ids, fmt.Sprintf("%016x", uint64(number)))
		}
		if err := s.post(message); err != nil {
			return err
		}
	}
	return nil
}
