package relay

import (
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// PortStats and ClientStats are the counts of the parts.
type (
	PortStats   = publicport.Stats
	ClientStats = session.Stats
)

// Stats are counts of a tunnel server, now or since it was made.
type Stats struct {
	ControlChannel  bool   // Whether a control channel has brought a desired state and is open.
	ControlChannels uint64 // How many ever did.

	PortStats
	ClientStats

	Dropped          map[string]uint64 // Datagrams ever dropped, by reason,
	DroppedDatagrams uint64            // and for whatever reason.
}

// Stats returns counts. It may be called at any time, from any goroutine.
func (s *Server) Stats() Stats {
	stats := Stats{
		ControlChannel:  s.control.Connected(),
		ControlChannels: s.control.Channels(),
		PortStats:       s.ports.Stats(),
		ClientStats:     s.clients.Stats(),
		Dropped:         map[string]uint64{},
	}
	for why, n := range stats.PortStats.Dropped {
		stats.Dropped[string(why)] += n
	}
	for why, n := range stats.ClientStats.Dropped {
		stats.Dropped[why] += n
	}
	for _, n := range stats.Dropped {
		stats.DroppedDatagrams += n
	}
	return stats
}
