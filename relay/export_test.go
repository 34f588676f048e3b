package relay

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/meter"
)

// TickPorts has the public ports take a time for the present.
func (s *Server) TickPorts(now time.Time) { s.ports.Tick(now) }

// TakeUsage returns what allocations have carried since the last call.
func (s *Server) TakeUsage() map[int64]meter.Usage {
	taken := map[int64]meter.Usage{}
	s.ports.TakeUsage(func(id int64, u meter.Usage) { taken[id] = u })
	return taken
}
