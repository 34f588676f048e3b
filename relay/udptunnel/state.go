package udptunnel

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// probeRetry is the pause after a probe that has not been answered, while
	// there is something to send.
	probeRetry = 200 * time.Millisecond
	// activeFor is how long after players' records a path counts as in use.
	activeFor = 5 * time.Second
	// hopefulProbes is how many probes of a path that is down follow each other
	// quickly. From then on they are hopelessPause apart: UDP does not get through
	// here, or not now.
	hopefulProbes = 10
	hopelessPause = 10 * time.Second
	// deafAfter is when a tunnel server takes a path for down on which nothing
	// has come, be there anything to send or not.
	deafAfter = 3 * wire.Keepalive
	// trialTries is how many probes of another size follow each other before
	// there is a longer pause.
	trialTries = 3
	trialPause = time.Minute
)

// sizes are the lengths of packets, as UDP payloads, that are tried one after
// another: that of the least MTU of IPv6, that of a tunnel of WireGuard's
// (1,420 bytes of MTU over IPv4), and that of Ethernet over IPv6.
var sizes = [...]int{wire.PacketSize, 1392, 1452}

// state is what is known of a path.
type state struct {
	peer  udpsock.Endpoint // Where to send.
	known bool             // Whether that is known.
	ended bool             // The path was closed.

	asked    uint64    // The number of the last probe,
	askedAt  time.Time // and when it was sent.
	since    time.Time // When the first was sent of those after the last answer; zero: there is none.
	misses   int       // How many those are.
	heardAt  time.Time // When a packet came last.
	used     time.Time // When players' records last passed.
	sizeNow  int       // Index in sizes.
	trial    uint64    // The number of the last probe of the next size,
	tries    int       // the how manieth it was,
	trialDue time.Time // and when the next is due.
}

// probe is one to be sent: number 0 is none.
type probe struct {
	number uint64
	size   int
}

// resize sets how long packets may be. It is called with mu held.
func (p *Path) resize(index int) {
	p.state.sizeNow = index
	p.budget.Store(int64(sizes[index] - seal.Overhead))
}

// shrink goes back to the length that arrives everywhere.
func (p *Path) shrink(now time.Time) {
	p.resize(0)
	p.state.tries, p.state.trialDue = 0, now.Add(trialPause)
}

// setUp notes whether packets arrive. It is called with mu held.
func (p *Path) setUp(up bool) {
	if p.up.Swap(up) == up {
		return
	}
	if up {
		p.counters.Up.Add(1)
	} else {
		p.counters.Up.Add(-1)
		p.resize(0)
	}
}

// heard notes that an authentic packet has come. It is called with mu held.
func (p *Path) heard(from *udpsock.Endpoint, newest bool, now time.Time) {
	s := &p.state
	s.heardAt = now
	if p.client || !newest || s.ended || (s.known && s.peer == *from) {
		return
	}
	if s.known {
		p.counters.Moved.Add(1)
	}
	s.peer, s.known = *from, true
	// Packets go there at once; that they arrive is yet to be shown.
	s.askedAt = time.Time{}
}

// answered notes that a probe was answered. It is called with mu held.
func (p *Path) answered(number uint64, now time.Time) {
	s := &p.state
	if number == 0 || number > s.asked || !s.known {
		return
	}
	s.since, s.misses = time.Time{}, 0
	if !p.up.Load() {
		p.setUp(true)
		s.tries, s.trialDue = 0, now
	}
	if number == s.trial && s.sizeNow < len(sizes)-1 {
		s.trial, s.tries, s.trialDue = 0, 0, now
		p.resize(s.sizeNow + 1)
	}
	p.eager.Store(false)
}

// due returns the probes to be sent with what is sent now, and where to. It is
// called with mu held. Used says that players' records are being sent.
func (p *Path) due(now time.Time, used bool) (probes [2]probe, to udpsock.Endpoint, known bool) {
	s := &p.state
	if !s.known {
		return probes, to, false
	}
	if used {
		s.used = now
	}
	p.expire(now)
	pause := wire.ProbeInterval
	if !s.since.IsZero() {
		pause = probeRetry
	}
	if now.Sub(s.askedAt) >= pause {
		probes[0] = p.ask(now)
	}
	if p.up.Load() && s.sizeNow < len(sizes)-1 && !now.Before(s.trialDue) {
		s.asked++
		s.trial = s.asked
		probes[1] = probe{number: s.asked, size: sizes[s.sizeNow+1]}
		s.trialDue = now.Add(wire.ProbeInterval)
		if s.tries++; s.tries == trialTries {
			s.tries, s.trialDue = 0, now.Add(trialPause)
		}
	}
	return probes, s.peer, true
}

func (p *Path) ask(now time.Time) probe {
	s := &p.state
	s.asked++
	s.askedAt = now
	s.misses++
	if s.since.IsZero() {
		s.since = now
	}
	p.eager.Store(p.client && !p.up.Load() && s.misses < hopefulProbes)
	return probe{number: s.asked, size: sizes[s.sizeNow]}
}

// expire notes what follows from there being no answer. It is called with mu held.
func (p *Path) expire(now time.Time) {
	s := &p.state
	if !p.up.Load() {
		return
	}
	switch silent := now.Sub(s.since); {
	case !p.client && now.Sub(s.heardAt) > deafAfter:
		p.setUp(false)
	case s.since.IsZero():
	case silent >= wire.PathTimeout:
		p.setUp(false)
		s.misses = 0
		p.eager.Store(p.client)
	case silent >= wire.PathTimeout/2 && s.sizeNow > 0:
		p.shrink(now) // Perhaps shorter ones arrive.
	}
}

// Tick sends what is due with time. The path's owner calls it every second or so.
func (p *Path) Tick(now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	p.mu.Lock()
	p.expire(now)
	wanted := p.wanted(now)
	p.mu.Unlock()
	if wanted {
		p.list = p.list[:0]
		p.transmit(now, false)
	}
}

// wanted reports whether a probe should be sent though nothing else is. It is
// called with mu held.
func (p *Path) wanted(now time.Time) bool {
	s := &p.state
	pause := now.Sub(s.askedAt)
	switch {
	case !s.known:
		return false
	case !p.up.Load():
		// The tunnel server waits for the client's: there may be a firewall that
		// only a packet from there opens.
		return p.client && (s.misses < hopefulProbes || pause >= hopelessPause)
	case !s.since.IsZero():
		return true
	case p.client:
		// A player's datagram after the agent's address has changed goes astray until
		// the tunnel server hears from the new one.
		return pause >= wire.Keepalive || (pause >= wire.ProbeInterval/2 && now.Sub(s.used) < activeFor)
	default:
		return false
	}
}
