package controlclient

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// playersInterval is the least time between two reports of a number of players.
// That there are none is reported at once.
const playersInterval = 5 * time.Second

// refusalsInterval is the least time between two reports of refusals.
const refusalsInterval = 5 * time.Second

// sent is what a channel was sent. The panel has forgotten what an earlier one was.
type sent struct {
	applied   bool // The desired state of revision is real: it may be reported on.
	revision  types.Revision
	reports   map[int64]report
	players   int // -1 where none was sent.
	playersAt time.Time

	refusalsAt time.Time

	takesUsage   bool // The panel does.
	awaitsStored bool // A usage report was sent and is not acknowledged.

	takesConnections bool // The panel does.
	connections      bool // StartConnections was called for the channel.
}

// report is an AllocationReport in a form that can be compared.
type report struct {
	state        types.AllocationReportState
	reason       string
	drained      bool
	target       types.TargetState
	targetReason string
}

// begin takes up a desired state that has been applied. Everything is reported
// again after a snapshot, and after a change what it names, whose last report may
// have been about another port.
func (s *sent) begin(u update) {
	s.applied, s.revision = true, u.revision
	if u.snapshot {
		s.reports, s.players, s.playersAt = nil, -1, time.Time{}
		s.takesConnections = u.connections
	}
	for _, id := range u.allocations {
		delete(s.reports, id)
	}
}

// Report sends what is true of the allocations and differs from what the channel
// was sent. Without a channel, and while a desired state is being applied, it does
// nothing: everything is reported after that.
func (c *Client[State, S, C]) Report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report()
}

// report is called with mu held, for Reports too: what it returns is then true of
// the revision that the report names.
func (c *Client[State, S, C]) report() {
	if c.conn == nil || !c.sent.applied {
		return
	}
	current := c.opts.Reports()
	reports := make(map[int64]report, len(current))
	var changed []types.AllocationReport
	for _, a := range current {
		if a.Reason != nil {
			a.Reason = cut(*a.Reason)
		}
		if a.TargetReason != nil {
			a.TargetReason = cut(*a.TargetReason)
		}
		r := report{
			state: a.State, reason: value(a.Reason), drained: value(a.Drained),
			target: value(a.Target), targetReason: value(a.TargetReason),
		}
		if last, ok := c.sent.reports[a.ID]; !ok || last != r {
			changed = append(changed, a)
		}
		reports[a.ID] = r
	}
	c.sent.reports = reports
	slices.SortFunc(changed, func(a, b types.AllocationReport) int { return cmp.Compare(a.ID, b.ID) })
	for part := range slices.Chunk(changed, types.MaxStatusReportAllocations) {
		message := types.StatusReport{Type: types.TypeStatus, Revision: c.sent.revision, Allocations: part}
		// An error means that the channel has ended. The next one is sent everything.
		if c.conn.Send(message) != nil {
			return
		}
	}
}

// ReportPlayers sends the number of players where it differs from what the channel
// was sent: 0 at once, any other at most every 5 s. To be called about once a
// second; every snapshot does too.
func (c *Client[State, S, C]) ReportPlayers(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reportPlayers(now)
}

func (c *Client[State, S, C]) reportPlayers(now time.Time) {
	if c.opts.Players == nil || c.conn == nil || !c.sent.applied {
		return
	}
	players := c.opts.Players()
	if players == c.sent.players || players > 0 && now.Sub(c.sent.playersAt) < playersInterval {
		return
	}
	c.sent.players, c.sent.playersAt = players, now
	// An error means that the channel has ended. The next one is sent the number.
	_ = c.conn.Send(types.StatusReport{
		Type: types.TypeStatus, Revision: c.sent.revision, Allocations: []types.AllocationReport{}, Players: &players,
	})
}

// ReportRefusals sends what public ports have refused since the last report, at most
// every 5 s; if that is nothing, it sends nothing. To be called about once a second.
// Without a channel, and while a desired state is being applied, it does nothing: what is
// refused then is sent after that. What was handed to a channel counts as sent. So nothing
// counts twice, and what the panel has not received when a channel ends is lost.
func (c *Client[State, S, C]) ReportRefusals(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.Refusals == nil || c.conn == nil || !c.sent.applied || now.Sub(c.sent.refusalsAt) < refusalsInterval {
		return
	}
	part := make([]types.AllocationRefusals, 0, types.MaxStatusReportRefusals)
	for of := range c.opts.Refusals() {
		if part = append(part, of); len(part) < types.MaxStatusReportRefusals {
			continue
		}
		if !c.sendRefusals(part, now) {
			return
		}
		part = part[:0]
	}
	if len(part) > 0 {
		c.sendRefusals(part, now)
	}
}

// sendRefusals reports whether the channel has taken the message. It keeps nothing of it.
func (c *Client[State, S, C]) sendRefusals(refusals []types.AllocationRefusals, now time.Time) bool {
	c.sent.refusalsAt = now
	return c.conn.Send(types.StatusReport{
		Type: types.TypeStatus, Revision: c.sent.revision, Allocations: []types.AllocationReport{}, Refusals: &refusals,
	}) == nil
}

// ReportConnections sends the next report of players, if the panel takes it and there is
// something to report. To be called at most four times a second. Without a channel, and while
// a desired state is being applied, it does nothing: the next channel is sent everything.
func (c *Client[State, S, C]) ReportConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.Connections == nil || c.conn == nil || !c.sent.applied || !c.sent.takesConnections {
		return
	}
	if !c.sent.connections {
		c.sent.connections = true
		c.opts.Connections.StartConnections()
	}
	if report := c.opts.Connections.NextConnections(); report != nil {
		// An error means that the channel has ended.
		_ = c.conn.Send(report)
	}
}

// cut shortens a reason to the contract's maximum, in bytes and so in characters,
// at the end of a character. An empty one is left out.
func cut(reason string) *string {
	if len(reason) > types.MaxAllocationReportReason {
		reason = strings.ToValidUTF8(reason[:types.MaxAllocationReportReason], "")
	}
	if reason == "" {
		return nil
	}
	return &reason
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
