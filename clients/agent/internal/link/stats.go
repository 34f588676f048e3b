package link

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// counters count events where they happen. No player's byte costs more than an
// atomic addition.
type counters struct {
	tcpConnections, udpConnections atomic.Int64 // Open data connections.
	udp                            udptunnel.Counters
}

// Stats are a Manager's counts. Those of bytes and datagrams are totals since it was
// made, the others current.
type Stats struct {
	// Links, by state.
	LinksDialling, LinksUp, LinksDown int
	// Desired allocations, by what Reports says of them; those that it leaves out
	// are pending.
	AllocationsPending, AllocationsReady, AllocationsFailed int
	// Open data connections, by what they carry.
	TCPConnections, UDPConnections int64
	// Payload bytes of players.
	TCP, UDP Bytes
	// UDP flows.
	Flows int64
	// Sealed packets.
	Paths udptunnel.PathStats

	// Datagrams dropped,
	QueueFull        uint64 // because a transport's queue was full,
	NoDataConnection uint64 // because the session had no transport,
	NoFlow           uint64 // because their flow had ended or was refused,
	TooLong          uint64 // because they exceed wire.MaxDatagram with their PROXY header.
}

// Bytes are payload bytes by direction.
type Bytes struct{ FromPlayers, ToPlayers uint64 }

// Stats returns the counts.
func (m *Manager) Stats() Stats {
	c := &m.config.counters
	s := Stats{
		TCPConnections:   c.tcpConnections.Load(),
		UDPConnections:   c.udpConnections.Load(),
		UDP:              Bytes{FromPlayers: c.udp.Datagrams.ReceivedBytes.Load(), ToPlayers: c.udp.Datagrams.SentBytes.Load()},
		Flows:            c.udp.Flows.Load(),
		Paths:            c.udp.Paths.Stats(),
		QueueFull:        c.udp.Datagrams.Overflowed.Load(),
		NoDataConnection: c.udp.Datagrams.Late.Load(),
		NoFlow:           c.udp.NoFlow.Load(),
		TooLong:          c.udp.TooLong.Load(),
	}
	s.TCP.FromPlayers, s.TCP.ToPlayers = m.config.Targets.TCP()
	for _, r := range m.Reports() {
		switch r.State {
		case types.ReportReady:
			s.AllocationsReady++
		case types.ReportFailed:
			s.AllocationsFailed++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.AllocationsPending = max(0, len(m.allocations)-s.AllocationsReady-s.AllocationsFailed)
	for _, l := range m.links {
		switch state, _ := l.status(); state {
		case dialling:
			s.LinksDialling++
		case up:
			s.LinksUp++
		case down:
			s.LinksDown++
		}
	}
	return s
}
