package publicport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

const (
	// maxReported is how many connections are reported to the panel at a time.
	maxReported = 100_000
	// updateInterval is the least time between two reports of what a connection has carried.
	updateInterval = 10 * time.Second
	// updateEvery is the least time between two reports with updates, and maxUpdates how many
	// each of them has: with more connections than are updated in updateInterval, the
	// interval grows.
	updateEvery = time.Second
	maxUpdates  = types.MaxConnectionsReportUpdated
	// updateScan is how many connections are examined for an update at a time.
	updateScan = 10_000
)

// connection is a player who is in, by TCP or by a flow that is proven.
type connection struct {
	id         uint64 // Random: it tells nobody how many there are.
	allocation int64
	client     uuid.UUID
	source     netip.AddrPort
	since      time.Time
	meter      *meter.Meter
	tcp        *net.TCPConn // nil for UDP.
	cut        func()       // Ends the connection. It is called without a lock held.

	// The following are guarded by connections.mu.
	reported   bool // To the panel, on the channel there is now.
	ended      bool
	reportedAt time.Time
	traffic    meter.Traffic // As reported.
}

// connections are the players who are in, and what the panel has been told of them. While
// it is told nothing, nothing waits. The zero value is empty and ready to use.
type connections struct {
	mu  sync.Mutex
	all map[uint64]*connection

	reporting bool
	complete  bool          // The panel has been told of all that there were.
	fresh     []*connection // Not reported yet.
	reported  []*connection // In the order in which they are examined for updates.
	next      int           // The next of them.
	current   int           // Of those, how many have not ended.
	closed    []*connection // Ended, and not reported as such.
	updatedAt time.Time
}

// add notes that a player is in.
func (c *connections) add(n *connection) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[uint64]*connection{}
	}
	for ok := true; ok; _, ok = c.all[n.id] {
		n.id = rand.Uint64()
	}
	c.all[n.id] = n
	if c.reporting {
		c.fresh = append(c.fresh, n)
	}
	return n
}

// remove notes that a player has left; nil is nobody.
func (c *connections) remove(n *connection) {
	if n == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.ended {
		return
	}
	n.ended = true
	delete(c.all, n.id)
	if n.reported {
		c.current--
		c.closed = append(c.closed, n)
	} else if len(c.fresh) > 2*len(c.all)+types.MaxConnectionsReportOpened {
		c.fresh = slices.DeleteFunc(c.fresh, func(f *connection) bool { return f.ended })
	}
}

// find returns the connection of an id as the panel has it, or nil.
func (c *connections) find(id string) *connection {
	number, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[number]
}

// start has the next reports tell of all that there are: the panel knows of none.
func (c *connections) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.reporting = true
	for _, n := range c.all {
		c.fresh = append(c.fresh, n)
	}
}

// stop keeps nothing more for a panel that cannot be told: without it, all who leave in the
// meantime would be kept with their sockets.
func (c *connections) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.reporting = false
}

// forget forgets what the panel was told, and what waits for it. It is called with mu held.
func (c *connections) forget() {
	c.complete, c.fresh, c.reported, c.closed, c.next, c.current = false, nil, nil, nil, 0, 0
	for _, n := range c.all {
		n.reported = false
	}
}

// report returns what the panel has not been told yet, as much as one report has, or nil.
func (c *connections) report(now time.Time, roundTrip func(client uuid.UUID) time.Duration) *types.ConnectionsReport {
	report, opened, updated := c.take(now)
	if report == nil {
		return nil
	}
	// Without the lock, which those wait for who join: the system is asked for each.
	for i, n := range opened {
		report.Opened[i].PlayerRoundTripMs, report.Opened[i].TunnelRoundTripMs = n.roundTrips(roundTrip)
	}
	for i, n := range updated {
		report.Updated[i].PlayerRoundTripMs, report.Updated[i].TunnelRoundTripMs = n.roundTrips(roundTrip)
	}
	return report
}

// take returns the next report without round trips, and the connections that are opened and
// updated in it.
func (c *connections) take(now time.Time) (report *types.ConnectionsReport, opened, updated []*connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	opened = c.takeFresh()
	closed := c.takeClosed()
	if now.Sub(c.updatedAt) >= updateEvery {
		if updated = c.takeUpdates(now); len(updated) > 0 {
			c.updatedAt = now
		}
	}
	report = &types.ConnectionsReport{
		Type: types.TypeConnections, Opened: make([]types.OpenedConnection, 0, len(opened)),
		Updated: make([]types.ConnectionCounters, 0, len(updated)), Closed: make([]types.ConnectionCounters, 0, len(closed)),
	}
	for _, n := range opened {
		report.Opened = append(report.Opened, n.opened(n.counters(now)))
	}
	for _, n := range updated {
		report.Updated = append(report.Updated, n.counters(now))
	}
	for _, n := range closed {
		report.Closed = append(report.Closed, n.counters(now))
	}
	if !c.complete && !c.waiting() {
		complete := true
		c.complete, report.Complete = true, &complete
	} else if len(opened)+len(updated)+len(closed) == 0 {
		return nil, nil, nil
	}
	return report, opened, updated
}

// waiting reports whether there are players of whom the next report tells.
func (c *connections) waiting() bool {
	return c.current < maxReported && slices.ContainsFunc(c.fresh, (*connection).carried)
}

// carried reports whether the player is in and, with TCP, was passed to the tunnel client.
func (n *connection) carried() bool { return !n.ended && n.meter.Joined() }

// takeFresh returns connections that were not reported.
func (c *connections) takeFresh() (taken []*connection) {
	most := min(types.MaxConnectionsReportOpened, maxReported-c.current)
	kept := c.fresh[:0]
	for _, n := range c.fresh {
		switch {
		case n.ended: // It never was for the panel.
		case len(taken) < most && n.carried():
			n.reported = true
			taken = append(taken, n)
		default:
			kept = append(kept, n)
		}
	}
	clear(c.fresh[len(kept):])
	c.fresh = kept
	c.reported = append(c.reported, taken...)
	c.current += len(taken)
	return taken
}

// takeClosed returns connections that were reported and have ended.
func (c *connections) takeClosed() []*connection {
	n := min(len(c.closed), types.MaxConnectionsReportClosed)
	taken := slices.Clone(c.closed[:n])
	c.closed = slices.Delete(c.closed, 0, n)
	return taken
}

// takeUpdates returns connections that have carried anything since they were reported, in
// turn. Those that have ended are forgotten meanwhile.
func (c *connections) takeUpdates(now time.Time) (taken []*connection) {
	if len(c.reported) > 2*c.current+maxUpdates {
		c.reported, c.next = slices.DeleteFunc(c.reported, func(n *connection) bool { return n.ended }), 0
	}
	for range min(len(c.reported), updateScan) {
		if len(taken) == maxUpdates {
			break
		}
		n := c.reported[c.next%len(c.reported)]
		c.next = (c.next + 1) % len(c.reported)
		if !n.ended && now.Sub(n.reportedAt) >= updateInterval && n.meter.Traffic() != n.traffic {
			taken = append(taken, n)
		}
	}
	return taken
}

// counters returns what the connection has carried, and notes that it is reported.
func (n *connection) counters(now time.Time) types.ConnectionCounters {
	n.traffic, n.reportedAt = n.meter.Traffic(), now
	return types.ConnectionCounters{
		ID: fmt.Sprintf("%016x", n.id), DownloadBytes: int64(n.traffic.DownloadBytes), UploadBytes: int64(n.traffic.UploadBytes),
	}
}

// roundTrips returns the round trips to the player and to the tunnel client; nil is not known.
func (n *connection) roundTrips(roundTrip func(client uuid.UUID) time.Duration) (player, tunnel *float32) {
	if n.tcp != nil {
		player = milliseconds(roundTripOf(n.tcp))
	}
	return player, milliseconds(roundTrip(n.client))
}

func (n *connection) opened(counters types.ConnectionCounters) types.OpenedConnection {
	return types.OpenedConnection{
		ID: counters.ID, DownloadBytes: counters.DownloadBytes, UploadBytes: counters.UploadBytes,
		AllocationID: n.allocation, SourceAddress: n.source.Addr().Unmap().WithZone("").String(), SourcePort: int(n.source.Port()), Since: n.since.UTC(),
	}
}

// milliseconds returns a round trip as it is reported; 0 is not known.
func milliseconds(d time.Duration) *float32 {
	if d <= 0 {
		return nil
	}
	ms := float32(d.Microseconds()) / 1000
	return &ms
}

// StartConnections has the next reports tell of all players.
func (p *Ports) StartConnections() { p.live.start() }

// NextConnections returns the next report of players, or nil if there is nothing to report.
// It is called at most four times a second, from StartConnections to StopConnections.
func (p *Ports) NextConnections() *types.ConnectionsReport {
	return p.live.report(time.Now(), p.o.Clients.RoundTrip)
}

// StopConnections keeps nothing for further reports.
func (p *Ports) StopConnections() { p.live.stop() }

// CloseConnections ends connections by their ids, as they were reported. Others have ended.
func (p *Ports) CloseConnections(ids []string) {
	for _, id := range ids {
		if n := p.live.find(id); n != nil {
			n.cut()
		}
	}
}
