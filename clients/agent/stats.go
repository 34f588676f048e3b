package agent

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// counters are what an agent counts where it happens. Nothing on the way of a
// player's bytes takes more than an atomic addition.
type counters struct {
	streamConnections, datagramConnections atomic.Int64
	streams                                tcpstream.Counters
	udp                                    udptunnel.Counters
}

// connections counts the open data connections of a kind.
func (c *counters) connections(kind wire.Kind) *atomic.Int64 {
	if kind == wire.KindDatagram {
		return &c.datagramConnections
	}
	return &c.streamConnections
}

// drops is how many datagrams were dropped, by reason.
func (l *links) drops() map[string]uint64 {
	udp, local := &l.counters.udp, l.targets.Stats()
	return map[string]uint64{
		"queue_full":         udp.Datagrams.Overflowed.Load(),
		"no_data_connection": udp.Datagrams.Late.Load(),
		"no_flow":            udp.NoFlow.Load(),
		"too_long":           udp.TooLong.Load() + local.TooLong,
		"waiting_limit":      local.WaitingLimit,
		"unsendable":         local.Unsendable,
	}
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
