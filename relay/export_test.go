package relay

import "time"

// TickPorts has the public ports take a time for the present.
func (s *Server) TickPorts(now time.Time) { s.ports.Tick(now) }
