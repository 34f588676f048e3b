package agent

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// reportsPerMessage and maxReason are the contract's limits of a
	// StatusReport.
	reportsPerMessage = 1000
	maxReason         = 500
)

// allocationState is a report in a form that can be compared.
type allocationState struct {
	state  types.AllocationReportState
	reason string
}

// shownAllocation is an allocation as events have shown it.
type shownAllocation struct {
	EventPort
	allocationState
}

// report tells the panel and whoever watches what has become of the desired
// state, each time it may have changed.
func (a *Agent) report(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
		}
		for _, event := range a.look() {
			a.events.emit(event)
		}
	}
}

// look compares the reports with what was told of them, tells the panel the
// difference, and returns what to tell whoever watches.
func (a *Agent) look() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := map[int64]allocationState{}
	for _, r := range a.links.Reports() {
		if _, ok := a.desired.allocations[r.ID]; !ok {
			continue
		}
		s := allocationState{state: r.State}
		if r.Reason != nil {
			s.reason = *r.Reason
		}
		now[r.ID] = s
	}
	a.tellPanel(now)
	return a.changes(now)
}

// tellPanel sends what differs from what this channel was told. An error needs
// no care: the channel has ended, and the next one is told everything.
func (a *Agent) tellPanel(now map[int64]allocationState) {
	if a.conn == nil {
		return
	}
	var reports []types.AllocationReport
	for _, id := range slices.Sorted(maps.Keys(now)) {
		s := now[id]
		if told, ok := a.sent[id]; ok && told == s {
			continue
		}
		report := types.AllocationReport{ID: id, State: s.state}
		if s.reason != "" {
			reason := s.reason
			if len(reason) > maxReason {
				reason = strings.ToValidUTF8(reason[:maxReason], "")
			}
			report.Reason = &reason
		}
		reports = append(reports, report)
	}
	a.sent = now
	for part := range slices.Chunk(reports, reportsPerMessage) {
		message := types.StatusReport{Type: types.TypeStatus, Revision: a.desired.revision, Allocations: part}
		if a.conn.Send(message) != nil {
			return
		}
	}
}

// changes returns the events since it was last called.
func (a *Agent) changes(now map[int64]allocationState) []Event {
	var events []Event
	shown := map[int64]shownAllocation{}
	for _, id := range slices.Sorted(maps.Keys(a.shown)) {
		was := a.shown[id]
		if _, ok := a.desired.allocations[id]; !ok {
			events = append(events, Event{Type: EventAllocationClosed, Allocation: &was.EventPort})
			continue
		}
		shown[id] = was
	}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		s := shownAllocation{eventPort(a.desired.allocations[id]), now[id]}
		shown[id] = s
		if was, ok := a.shown[id]; ok && was == s {
			continue
		}
		event := Event{Type: EventAllocationReady, Reason: s.reason, Allocation: &s.EventPort}
		if s.state == types.ReportFailed {
			event.Type = EventAllocationFailed
		}
		events = append(events, event)
	}
	a.shown = shown
	return events
}
