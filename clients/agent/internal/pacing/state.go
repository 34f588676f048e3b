package pacing

import "time"

// State is what is known of the path to one tunnel server, or proxy.
type State struct {
	// RoundTrip is the shortest of the current round trips of its connections, as the
	// kernel measures them; 0: not known.
	RoundTrip time.Duration
	// Limit is the most bytes per second that all its connections may send; 0: any number.
	Limit float64
}

// States returns the state of each path, by the address of the tunnel server, or of the
// proxy. It reads no socket.
func (p *Pacer) States() map[string]State {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make(map[string]State, len(p.paths))
	for address, path := range p.paths {
		s := State{Limit: path.governor.allowed()}
		for _, c := range path.connections {
			if rtt := c.last.rtt; rtt > 0 && (s.RoundTrip == 0 || rtt < s.RoundTrip) {
				s.RoundTrip = rtt
			}
		}
		states[address] = s
	}
	return states
}
