package relay

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// Stats are counts of a tunnel server, now or since it was made.
type Stats struct {
	ControlChannel  bool   // Whether a control channel has brought a desired state and is open.
	ControlChannels uint64 // How many ever did.

	Ports map[PortState]int // Allocations that the panel wants here, by what became of them.

	Links               int64  // Tunnel clients linked now.
	DataConnections     int64  // Open now, idle ones included.
	IdleDataConnections int64  // Open now and ready for a player.
	Handshakes          uint64 // Data connections ever taken.

	Players        int64             // TCP connections on public ports now.
	PlayersJoined  uint64            // TCP connections ever taken on public ports.
	PlayersRefused map[string]uint64 // Ever refused, by reason.
	Streams        Traffic

	Flows       int64  // UDP flows now.
	FlowsOpened uint64 // UDP flows ever opened.
	Datagrams   Traffic
	Paths       udptunnel.PathStats // Their sealed packets.
	// OnDataConnections is how many datagrams took data connections, not packets.
	OnDataConnections Count

	DroppedDatagrams uint64            // Datagrams ever dropped, for whatever reason,
	Dropped          map[string]uint64 // and by reason.
}

// PortState is the protocol of an allocation and whether its public port is open
// to new players. One that drains is not, because it shall not be.
type PortState struct {
	Protocol types.Protocol
	Open     bool
	Draining bool
}

// Traffic is what has ever passed between players and data connections, in bytes
// of payload.
type Traffic struct{ FromPlayers, ToPlayers uint64 }

// Count is how many have ever passed between players and tunnel clients.
type Count struct{ FromPlayers, ToPlayers uint64 }

// refusal is why a player was not served.
type refusal int

const (
	refusedLimit            refusal = iota // The allocation has as many players as it may.
	refusedNoLink                          // Its tunnel client is not linked.
	refusedWaiting                         // Too many players wait for that tunnel client.
	refusedNoDataConnection                // It opened no data connection in time.
)

var refusalNames = [...]string{"limit", "no_link", "waiting_limit", "no_data_connection"}

// drop is why a datagram was dropped. What data connections drop themselves is
// counted by udptunnel.DatagramCounters.
type drop int

const (
	dropTooLong    drop = iota // Longer than a data connection carries.
	dropNoLink                 // The allocation's tunnel client is not linked.
	dropFlowLimit              // The allocation, or the sender, has as many flows as it may.
	dropUnsendable             // The system would not send it to the player.
	dropDraining               // The port takes no new players.
)

var dropNames = [...]string{"too_long", "no_link", "flow_limit", "unsendable", "draining"}

// counters are what a tunnel server counts where it happens. Nothing on the way
// of a player's bytes takes more than an atomic addition.
type counters struct {
	controlChannels                 atomic.Uint64
	links, dataConnections, players atomic.Int64
	handshakes, joined              atomic.Uint64
	refused                         [len(refusalNames)]atomic.Uint64
	dropped                         [len(dropNames)]atomic.Uint64
	streams                         tcpstream.Counters
	udp                             udptunnel.Counters
}

func (c *counters) refuse(why refusal) { c.refused[why].Add(1) }
func (c *counters) drop(why drop)      { c.dropped[why].Add(1) }

// Stats returns counts. It may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.counters
	stats := Stats{
		ControlChannel:  s.control.attached(),
		ControlChannels: c.controlChannels.Load(),
		Ports:           s.ports.count(),
		Links:           c.links.Load(),
		Handshakes:      c.handshakes.Load(),
		Players:         c.players.Load(),
		PlayersJoined:   c.joined.Load(),
		PlayersRefused:  make(map[string]uint64, len(refusalNames)),
		Streams:         Traffic{FromPlayers: c.streams.Sent.Load(), ToPlayers: c.streams.Received.Load()},
		Flows:           c.udp.Flows.Load(),
		FlowsOpened:     c.udp.FlowsOpened.Load(),
		Datagrams:       Traffic{FromPlayers: c.udp.Datagrams.SentBytes.Load(), ToPlayers: c.udp.Datagrams.ReceivedBytes.Load()},
		Paths:           c.udp.Paths.Stats(),
		Dropped: map[string]uint64{
			"queue_full":         c.udp.Datagrams.Overflowed.Load(),
			"no_data_connection": c.udp.Datagrams.Late.Load(),
			"no_flow":            c.udp.NoFlow.Load(),
		},
	}
	// All are counted before those in packets, which have been read by now.
	stats.OnDataConnections = Count{
		FromPlayers: c.udp.Datagrams.Sent.Load() - stats.Paths.SentDatagrams,
		ToPlayers:   c.udp.Datagrams.Received.Load() - stats.Paths.ReceivedDatagrams,
	}
	for why, name := range refusalNames {
		stats.PlayersRefused[name] = c.refused[why].Load()
	}
	for why, name := range dropNames {
		stats.Dropped[name] += c.dropped[why].Load()
	}
	for _, n := range stats.Dropped {
		stats.DroppedDatagrams += n
	}
	for _, l := range s.allLinks() {
		stats.IdleDataConnections += l.pool.ready()
	}
	// After the idle ones, of which it must not be fewer.
	stats.DataConnections = max(c.dataConnections.Load(), stats.IdleDataConnections)
	return stats
}
