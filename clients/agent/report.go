package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/eclitunnel/eclitunnel/gen/types"
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

// report sends the panel and the events what has become of the desired state,
// each time that it may have changed.
func (a *Agent) report(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
		}
		a.control.Report()
		for _, event := range a.changes() {
			a.events.emit(event)
		}
	}
}

// reports returns what is true of the allocations now. It is called with mu held.
func (a *Agent) reports() []types.AllocationReport {
	return slices.DeleteFunc(a.links.Reports(), func(r types.AllocationReport) bool {
		_, ok := a.desired.allocations[r.ID]
		return !ok
	})
}

// changes returns the events since it was last called.
func (a *Agent) changes() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := map[int64]allocationState{}
	for _, r := range a.reports() {
		s := allocationState{state: r.State}
		if r.Reason != nil {
			s.reason = *r.Reason
		}
		now[r.ID] = s
	}
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
