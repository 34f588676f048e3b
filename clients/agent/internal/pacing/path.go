package pacing

import (
	"cmp"
	"slices"
	"time"
)

// networkPath is the connections to one tunnel server's address, which share one
// bottleneck and one limit.
type networkPath struct {
	governor    governor
	connections []*connection
	cursor      int // The first of the idle connections to read next.
	minRTT      time.Duration
	minRTTAt    time.Time

	// Reused at every reading.
	read  []*connection
	rates []float64
}

// connection is one connection on a path.
type connection struct {
	socket socket
	last   reading
	at     time.Time // Of last; zero: never read.
	busy   bool
	limit  float64 // The limit set; 0: none.
}

const (
	// idleReadings bounds how many idle connections are read at once.
	idleReadings = 256
	// busyBytes between two readings make a connection busy: it is read every time.
	busyBytes = 16 << 10
	// minPackets is how many packets a second a connection may send whatever its
	// share is. The kernel sets the time of the next packet when one leaves, and a
	// higher limit later does not change it: with a share of next to nothing, for
	// which a stall of all transfers is enough, that time would be minutes away.
	minPackets = 10
	// minRTTLifetime is how long the minimum round trip of a path counts: routes
	// change.
	minRTTLifetime = 5 * time.Minute
)

func (p *networkPath) add(s socket) {
	c := &connection{socket: s}
	if r, err := s.read(); err == nil {
		c.last.packet = r.packet
	}
	// The path's limit applies to a new connection from its first byte.
	p.setLimit(c, p.governor.allowed())
	p.connections = append(p.connections, c)
}

// tick reads the busy connections and some of the idle ones, and limits those it
// has read.
func (p *networkPath) tick(now time.Time) (busy bool) {
	s := sample{at: now}
	p.read, p.rates = p.read[:0], p.rates[:0]
	idle := 0
	kept := p.connections[:0]
	for i, c := range p.connections {
		turn := i >= p.cursor && idle < idleReadings
		if !c.busy && !turn {
			kept = append(kept, c)
			continue
		}
		if !c.busy {
			idle++
		}
		if !p.measure(c, &s) {
			continue // Closed.
		}
		kept = append(kept, c)
		p.read = append(p.read, c)
		busy = busy || c.busy
	}
	if p.cursor += idleReadings; p.cursor >= len(kept) {
		p.cursor = 0
	}
	clear(p.connections[len(kept):])
	p.connections = kept
	s.minRTT = p.minRTT
	p.governor.observe(s)
	each := share(p.governor.allowed(), p.rates)
	for _, c := range p.read {
		p.setLimit(c, each)
	}
	clear(p.read) // Do not keep a closed connection alive.
	return busy
}

// measure adds a connection's reading to s. It returns false if the connection is
// closed.
func (p *networkPath) measure(c *connection, s *sample) bool {
	now, err := c.socket.read()
	if err != nil {
		return false
	}
	before, at := c.last, c.at
	c.last, c.at = now, s.at
	if now.minRTT > 0 && (p.minRTT == 0 || now.minRTT <= p.minRTT || s.at.Sub(p.minRTTAt) > minRTTLifetime) {
		p.minRTT, p.minRTTAt = now.minRTT, s.at
	}
	elapsed := s.at.Sub(at)
	delivered := float64(int64(now.delivered - before.delivered))
	wasBusy := c.busy
	c.busy = !at.IsZero() && (delivered >= busyBytes || now.backlogged)
	if at.IsZero() || elapsed <= 0 || !wasBusy {
		// Its last reading is too old to derive a rate from.
		return true
	}
	s.elapsed = elapsed
	s.delivered += delivered
	p.rates = append(p.rates, delivered/elapsed.Seconds())
	// A connection that its receiver holds back fills no queue, and round trips are
	// out of date where nothing is delivered.
	if now.backlogged && delivered > 0 && now.receiverLimited-before.receiverLimited < elapsed/2 {
		if !s.saturating || now.rtt < s.rtt {
			s.rtt = now.rtt
		}
		s.saturating = true
	}
	return true
}

// setLimit sets a connection's limit, unless its limit is that already or nearly.
func (p *networkPath) setLimit(c *connection, to float64) {
	const near = 0.002
	if to > 0 {
		to = max(to, float64(minPackets*c.last.packet))
	}
	if to == c.limit || to > c.limit*(1-near) && to < c.limit*(1+near) {
		return
	}
	if c.socket.limit(to) == nil {
		c.limit = to
	}
}

// share divides the allowed rate among transfers that last sent at these rates:
// it returns the limit of each, the same for all. A transfer that wants less than
// that leaves the rest to the others. It sorts rates.
func share(allowed float64, rates []float64) float64 {
	// A transfer is assumed to want a quarter more than it got.
	const wanted = 1.25
	slices.SortFunc(rates, cmp.Compare)
	left := allowed
	for i, rate := range rates {
		if each := left / float64(len(rates)-i); wanted*rate >= each {
			return each
		}
		left -= wanted * rate
	}
	// None wants its share of what is left: any of them may have all of it.
	return allowed
}
