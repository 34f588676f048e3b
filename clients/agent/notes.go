package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// notePlayersInterval is the least time between two notes about players.
const notePlayersInterval = time.Second

// noteEvent notes an event in words, and what it says of the connection to the panel.
func (a *Agent) noteEvent(e Event) {
	switch e.Type {
	case EventConnected:
		a.view.connected(PanelView{Connected: true})
		a.view.note("connected to the panel", false)
	case EventDisconnected, EventSwitchedOff:
		a.view.connected(PanelView{Reason: e.Reason})
		a.view.note("not connected to the panel: "+e.Reason, e.Type == EventSwitchedOff)
	case EventStandby:
		a.view.connected(PanelView{Reason: e.Reason, Standby: true})
		a.view.note("standing by: another agent of this device took over", true)
	case EventAllocationReady:
		a.view.note(e.Allocation.Label()+" is open", false)
	case EventAllocationFailed:
		a.view.note(e.Allocation.Label()+" failed: "+e.Reason, true)
	case EventAllocationTarget:
		a.noteTarget(e)
	case EventAllocationClosed:
		delete(a.missing, e.Allocation.ID)
		a.view.note(e.Allocation.Label()+" was closed", false)
	case EventStopped:
		a.view.note("stopped", e.Reason != "")
	}
}

func (a *Agent) noteTarget(e Event) {
	switch e.Target {
	case types.TargetDown:
		a.view.note(e.Allocation.Label()+": the game does not answer: "+e.Reason, true)
		a.missing[e.Allocation.ID] = true
		return
	case types.TargetUp:
		if a.missing[e.Allocation.ID] { // Otherwise nobody has missed it.
			a.view.note(e.Allocation.Label()+": the game is there", false)
		}
	}
	delete(a.missing, e.Allocation.ID)
	a.view.touch()
}

// noteLinks notes which links have changed since those that were noted, which it returns.
func (a *Agent) noteLinks(noted map[uuid.UUID]link.Link) map[uuid.UUID]link.Link {
	now := map[uuid.UUID]link.Link{}
	for _, l := range a.links.Links() {
		now[l.Server] = l
		switch was := noted[l.Server]; {
		case l.Up && !was.Up:
			a.view.note("linked to the tunnel server "+l.Address, false)
		case l.Dialled && !l.Up && (was.Up || !was.Dialled || was.Reason != l.Reason):
			a.view.note("no link to the "+l.Reason, true) // It begins with the words tunnel server.
		}
	}
	return now
}

// playerChange notes, without waiting, that players have come, gone or been refused.
func (a *Agent) playerChange() {
	select {
	case a.played <- struct{}{}:
	default:
	}
}

// notePlayers notes who joins, leaves and is refused, until ctx ends: many at a time under
// one note.
func (a *Agent) notePlayers(ctx context.Context) {
	noted := map[int64]target.Carried{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.played:
		}
		now := a.links.Carried()
		a.mu.Lock()
		d := a.desired
		a.mu.Unlock()
		for _, id := range slices.Sorted(maps.Keys(now)) {
			allocation, ok := d.allocations[id]
			if text := playersText(noted[id], now[id]); ok && text != "" {
				a.view.note(eventPort(allocation, types.ClientServer{}).Label()+": "+text, now[id].Refused > noted[id].Refused)
			}
		}
		noted = now
		select {
		case <-ctx.Done():
			return
		case <-time.After(notePlayersInterval):
		}
	}
}

// playersText says what has become of an allocation's players between two looks, or "".
func playersText(before, now target.Carried) string {
	joined := int64(now.Joined - before.Joined)
	left := int64(before.Players) + joined - int64(now.Players)
	text := ""
	add := func(n int64, what string) {
		if n <= 0 {
			return
		}
		if text != "" {
			text += ", "
		}
		text += people(n) + " " + what
	}
	add(joined, "joined")
	add(left, "left")
	if text != "" {
		text += fmt.Sprintf(" (%d now)", now.Players)
	}
	refused := int64(now.Refused - before.Refused)
	if refused == 1 {
		add(refused, "was refused")
	} else {
		add(refused, "were refused")
	}
	return text
}

func people(n int64) string {
	if n == 1 {
		return "1 player"
	}
	return fmt.Sprintf("%d players", n)
}
