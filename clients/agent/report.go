package agent

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// allocationState is a report in a form that can be compared.
type allocationState struct {
	state  types.AllocationReportState
	reason string
	target targetState
}

type targetState struct {
	state  types.TargetState
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
	var links map[uuid.UUID]link.Link
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
		}
		a.control.Report()
		links = a.noteLinks(links)
		for _, event := range a.changes() {
			a.events.emit(event)
		}
		a.view.touch()
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
		now[r.ID] = stateOf(r)
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
		allocation := a.desired.allocations[id]
		s := shownAllocation{eventPort(allocation, a.desired.servers[allocation.ServerID]), now[id]}
		shown[id] = s
		events = append(events, s.since(a.shown[id])...)
	}
	a.shown = shown
	return events
}

func stateOf(r types.AllocationReport) allocationState {
	s := allocationState{state: r.State, target: targetState{state: types.TargetUnknown}}
	if r.Reason != nil {
		s.reason = *r.Reason
	}
	if r.Target != nil {
		s.target.state = *r.Target
	}
	if r.TargetReason != nil {
		s.target.reason = *r.TargetReason
	}
	return s
}

// since returns the events between what was shown of an allocation, the zero value if
// nothing was, and now.
func (s shownAllocation) since(was shownAllocation) (events []Event) {
	if was.state == "" {
		was.target.state = types.TargetUnknown
	}
	target := was.target
	was.target = s.target
	if !reflect.DeepEqual(was, s) {
		event := Event{Type: EventAllocationReady, Reason: s.reason, Allocation: &s.EventPort}
		if s.state == types.ReportFailed {
			event.Type = EventAllocationFailed
		}
		events = append(events, event)
	}
	if target != s.target {
		events = append(events, Event{
			Type: EventAllocationTarget, Target: s.target.state, Reason: s.target.reason, Allocation: &s.EventPort,
		})
	}
	return events
}
