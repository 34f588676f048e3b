package target

import (
	"sync"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// Carried is what the players of one allocation have sent and received since the
// allocation came to this agent, in bytes of payload.
type Carried struct {
	FromPlayers, ToPlayers uint64
	// Players is how many there are now: connections of TCP to the game, and flows of UDP
	// whose player has spoken after an answer of the game.
	Players int
	// Joined is how many there have been, and Refused how many TCP players did not reach
	// the game.
	Joined, Refused uint64
}

// carried counts for one allocation. Those who carry bytes add to the counters, whose Sent
// is what players have received.
type carried struct {
	tcpstream.Counters
	refused atomic.Uint64

	// Guarded by traffic's mu.
	protocol types.Protocol
	users    int // Connections and flows that may add to it.
	players  int
	joined   uint64
}

// traffic counts by allocation.
type traffic struct {
	onPlayers func() // May be nil.

	mu      sync.Mutex
	carried map[int64]*carried
	past    tcpstream.Counters // TCP of allocations that are gone.
}

// keep forgets what is neither an allocation nor has a player, and begins to count for
// what is new.
func (t *traffic) keep(allocations map[int64]types.ClientAllocation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, c := range t.carried {
		if _, ok := allocations[id]; ok || c.users > 0 {
			continue
		}
		if c.protocol == types.ProtocolTCP {
			t.past.Sent.Add(c.Sent.Load())
			t.past.Received.Add(c.Received.Load())
		}
		delete(t.carried, id)
	}
	for id, a := range allocations {
		if t.carried[id] == nil {
			t.carried[id] = &carried{protocol: a.Protocol}
		}
	}
}

// enter returns the counters of an allocation for a connection or flow, until leave.
func (t *traffic) enter(id int64) *carried {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.carried[id]
	if c == nil { // It was removed since it was found.
		c = new(carried)
	}
	c.users++
	return c
}

func (t *traffic) leave(c *carried) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.users--
}

// join notes a player, until part.
func (t *traffic) join(c *carried) {
	t.mu.Lock()
	c.players++
	c.joined++
	t.mu.Unlock()
	t.changed()
}

func (t *traffic) part(c *carried) {
	t.mu.Lock()
	c.players--
	t.mu.Unlock()
	t.changed()
}

// refused notes a TCP player who did not reach the game.
func (t *traffic) refused(id int64) {
	t.mu.Lock()
	c := t.carried[id]
	t.mu.Unlock()
	if c != nil {
		c.refused.Add(1)
		t.changed()
	}
}

func (t *traffic) changed() {
	if t.onPlayers != nil {
		t.onPlayers()
	}
}

// Carried returns what each allocation has carried.
func (d *Dialer) Carried() map[int64]Carried {
	t := &d.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[int64]Carried, len(t.carried))
	for id, c := range t.carried {
		all[id] = Carried{
			FromPlayers: c.Received.Load(), ToPlayers: c.Sent.Load(),
			Players: c.players, Joined: c.joined, Refused: c.refused.Load(),
		}
	}
	return all
}

// TCP returns the bytes of all TCP players since the Dialer was made.
func (d *Dialer) TCP() (fromPlayers, toPlayers uint64) {
	t := &d.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	fromPlayers, toPlayers = t.past.Received.Load(), t.past.Sent.Load()
	for _, c := range t.carried {
		if c.protocol == types.ProtocolTCP {
			fromPlayers += c.Received.Load()
			toPlayers += c.Sent.Load()
		}
	}
	return fromPlayers, toPlayers
}
