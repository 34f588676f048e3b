package agent

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// drop is why the agent dropped a datagram. What data connections drop
// themselves is counted by udptunnel.DatagramCounters.
type drop int

const (
	dropTooLong    drop = iota // The local target sent more than a data connection carries.
	dropWaiting                // Too much waits for the flow's socket to open.
	dropUnsendable             // The system would not send it to the local target.
)

var dropNames = [...]string{"too_long", "waiting_limit", "unsendable"}

// counters are what an agent counts where it happens. Nothing on the way of a
// player's bytes takes more than an atomic addition.
type counters struct {
	streamConnections, datagramConnections atomic.Int64
	targetFailures                         atomic.Uint64 // Local targets that could not be dialled.
	dropped                                [len(dropNames)]atomic.Uint64
	streams                                tcpstream.Counters
	udp                                    udptunnel.Counters
}

func (c *counters) drop(why drop) { c.dropped[why].Add(1) }

// connections counts the open data connections of a kind.
func (c *counters) connections(kind wire.Kind) *atomic.Int64 {
	if kind == wire.KindDatagram {
		return &c.datagramConnections
	}
	return &c.streamConnections
}

// drops is how many datagrams were dropped, by reason.
func (c *counters) drops() map[string]uint64 {
	drops := map[string]uint64{
		"queue_full":         c.udp.Datagrams.Overflowed.Load(),
		"no_data_connection": c.udp.Datagrams.Late.Load(),
		"no_flow":            c.udp.NoFlow.Load(),
		"too_long":           c.udp.TooLong.Load(),
	}
	for why, name := range dropNames {
		drops[name] += c.dropped[why].Load()
	}
	return drops
}

// countLinks is how many links are in which state.
func (l *links) countLinks() map[linkState]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[linkState]int{}
	for _, link := range l.running {
		counts[link.state]++
	}
	return counts
}

// countAllocations is how many of the wanted allocations are in which state;
// those of which nothing is known yet are in state "".
func (l *links) countAllocations() map[types.AllocationReportState]int {
	counts := map[types.AllocationReportState]int{}
	reports := l.Reports()
	for _, r := range reports {
		counts[r.State]++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	counts[""] = max(0, len(l.allocations)-len(reports))
	return counts
}
