package session

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// Stats are counts of the tunnel clients of a tunnel server, now or since it was
// made.
type Stats struct {
	Links               int64  // Tunnel clients linked now.
	DataConnections     int64  // Open now, idle ones included.
	IdleDataConnections int64  // Open now and ready for a player.
	Handshakes          uint64 // Data connections ever accepted.

	Streams     Traffic
	Datagrams   Traffic
	Flows       int64               // UDP flows now.
	FlowsOpened uint64              // UDP flows ever opened.
	Paths       udptunnel.PathStats // Sealed packets.
	// OnDataConnections is how many datagrams took data connections and not packets.
	OnDataConnections Count

	Dropped map[string]uint64 // Datagrams ever dropped in UDP sessions, by reason.
}

// Traffic is what has ever passed between players and data connections, in bytes
// of payload.
type Traffic struct{ FromPlayers, ToPlayers uint64 }

// Count is how many datagrams have ever passed between players and tunnel clients.
type Count struct{ FromPlayers, ToPlayers uint64 }

// counters are counted where things happen. Nothing on the way of a player's bytes
// takes more than an atomic addition.
type counters struct {
	links, dataConnections atomic.Int64
	handshakes             atomic.Uint64
	streams                tcpstream.Counters
	udp                    udptunnel.Counters
}

// Flows is the number of UDP flows now.
func (c *Clients) Flows() int64 { return c.counters.udp.Flows.Load() }

// Stats returns counts.
func (c *Clients) Stats() Stats {
	n := &c.counters
	stats := Stats{
		Links:       n.links.Load(),
		Handshakes:  n.handshakes.Load(),
		Streams:     Traffic{FromPlayers: n.streams.Sent.Load(), ToPlayers: n.streams.Received.Load()},
		Datagrams:   Traffic{FromPlayers: n.udp.Datagrams.SentBytes.Load(), ToPlayers: n.udp.Datagrams.ReceivedBytes.Load()},
		Flows:       n.udp.Flows.Load(),
		FlowsOpened: n.udp.FlowsOpened.Load(),
		Paths:       n.udp.Paths.Stats(),
		Dropped: map[string]uint64{
			"queue_full":         n.udp.Datagrams.Overflowed.Load(),
			"no_data_connection": n.udp.Datagrams.Late.Load(),
			"no_flow":            n.udp.NoFlow.Load(),
		},
	}
	// Datagrams are counted before those in packets, which have been read by now.
	stats.OnDataConnections = Count{
		FromPlayers: n.udp.Datagrams.Sent.Load() - stats.Paths.SentDatagrams,
		ToPlayers:   n.udp.Datagrams.Received.Load() - stats.Paths.ReceivedDatagrams,
	}
	for _, l := range c.registry.all() {
		stats.IdleDataConnections += l.pool.ready()
	}
	// After the idle ones, of which there cannot be more.
	stats.DataConnections = max(n.dataConnections.Load(), stats.IdleDataConnections)
	return stats
}
