package udptunnel

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// probeRetry is the pause after an unanswered probe, while there is something to
	// send.
	probeRetry = 200 * time.Millisecond
	// activeFor is how long a path counts as in use after records of players.
	activeFor = 5 * time.Second
	// fastProbes is how many probes a path that is down sends in quick succession.
	// After that they are slowProbePause apart: UDP does not pass, or not now.
	fastProbes     = 10
	slowProbePause = 10 * time.Second
	// receiveTimeout is the silence after which a tunnel server considers a path
	// down, even if it has nothing to send.
	receiveTimeout = 3 * wire.Keepalive
	// sizeTries is how many probes of the next size are sent before a pause of
	// sizePause.
	sizeTries = 3
	sizePause = time.Minute
)

// sizes are the packet sizes, as UDP payloads in bytes, that are tried one after
// another: for the least MTU of IPv6 (1,280), for the MTU of a WireGuard tunnel
// (1,420, over IPv4), and for that of Ethernet over IPv6 (1,500).
var sizes = [...]int{wire.PacketSize, 1392, 1452}

// state is what is known of a path.
type state struct {
	peer  udpsock.Endpoint // Where to send.
	known bool             // Whether that is known.
	ended bool             // The path was closed.

	lastProbe   uint64    // The number of the last probe,
	probedAt    time.Time // and when it was sent.
	unanswered  time.Time // When the first probe after the last answer was sent; zero: there is none.
	misses      int       // How many probes have been sent since the last answer.
	receivedAt  time.Time // When the last packet arrived.
	usedAt      time.Time // When records of players last passed.
	size        int       // Index in sizes.
	sizeProbe   uint64    // The number of the last probe of the next size,
	sizeProbes  int       // how many of that size have been sent since the last pause,
	sizeProbeAt time.Time // and when the next is due.
}

// probe is a probe to be sent; number 0: none.
type probe struct {
	number uint64
	size   int
}

// resize sets the packet size. It is called with mu held.
func (p *Path) resize(index int) {
	p.state.size = index
	p.budget.Store(int64(sizes[index] - seal.Overhead))
}

// shrink goes back to the size that arrives everywhere.
func (p *Path) shrink(now time.Time) {
	p.resize(0)
	p.state.sizeProbes, p.state.sizeProbeAt = 0, now.Add(sizePause)
}

// setUp records whether packets arrive. It is called with mu held.
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

// packetReceived records that an authentic packet has arrived. It is called with mu
// held.
func (p *Path) packetReceived(from *udpsock.Endpoint, newest bool, now time.Time) {
	s := &p.state
	s.receivedAt = now
	if p.client || !newest || s.ended || (s.known && s.peer == *from) {
		return
	}
	if s.known {
		p.counters.Moved.Add(1)
	}
	s.peer, s.known = *from, true
	// Packets are sent there at once; a probe must show that they arrive.
	s.probedAt = time.Time{}
}

// answered records that a probe was answered. It is called with mu held.
func (p *Path) answered(number uint64, now time.Time) {
	s := &p.state
	if number == 0 || number > s.lastProbe || !s.known {
		return
	}
	s.unanswered, s.misses = time.Time{}, 0
	if !p.up.Load() {
		p.setUp(true)
		s.sizeProbes, s.sizeProbeAt = 0, now
	}
	if number == s.sizeProbe && s.size < len(sizes)-1 {
		s.sizeProbe, s.sizeProbes, s.sizeProbeAt = 0, 0, now
		p.resize(s.size + 1)
	}
	p.eager.Store(false)
}

// due returns the probes to send now, and where to. Used says that records of players
// are being sent. It is called with mu held.
func (p *Path) due(now time.Time, used bool) (probes [2]probe, to udpsock.Endpoint, known bool) {
	s := &p.state
	if !s.known {
		return probes, to, false
	}
	if used {
		s.usedAt = now
	}
	p.expire(now)
	pause := wire.ProbeInterval
	if !s.unanswered.IsZero() {
		pause = probeRetry
	}
	if now.Sub(s.probedAt) >= pause {
		probes[0] = p.newProbe(now)
	}
	if p.up.Load() && s.size < len(sizes)-1 && !now.Before(s.sizeProbeAt) {
		s.lastProbe++
		s.sizeProbe = s.lastProbe
		probes[1] = probe{number: s.lastProbe, size: sizes[s.size+1]}
		s.sizeProbeAt = now.Add(wire.ProbeInterval)
		if s.sizeProbes++; s.sizeProbes == sizeTries {
			s.sizeProbes, s.sizeProbeAt = 0, now.Add(sizePause)
		}
	}
	return probes, s.peer, true
}

func (p *Path) newProbe(now time.Time) probe {
	s := &p.state
	s.lastProbe++
	s.probedAt = now
	s.misses++
	if s.unanswered.IsZero() {
		s.unanswered = now
	}
	p.eager.Store(p.client && !p.up.Load() && s.misses < fastProbes)
	return probe{number: s.lastProbe, size: sizes[s.size]}
}

// expire acts on missing answers. It is called with mu held.
func (p *Path) expire(now time.Time) {
	s := &p.state
	if !p.up.Load() {
		return
	}
	switch silent := now.Sub(s.unanswered); {
	case !p.client && now.Sub(s.receivedAt) > receiveTimeout:
		p.setUp(false)
	case s.unanswered.IsZero():
	case silent >= wire.PathTimeout:
		p.setUp(false)
		s.misses = 0
		p.eager.Store(p.client)
	case silent >= wire.PathTimeout/2 && s.size > 0:
		p.shrink(now) // Shorter packets may arrive.
	}
}

// Tick sends what is due at a time. The path's owner calls it every second.
func (p *Path) Tick(now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	p.mu.Lock()
	p.expire(now)
	needsProbe := p.needsProbe(now)
	p.mu.Unlock()
	if needsProbe {
		p.list = p.list[:0]
		p.transmit(now, false)
	}
}

// needsProbe reports whether a probe should be sent although nothing else is. It is
// called with mu held.
func (p *Path) needsProbe(now time.Time) bool {
	s := &p.state
	pause := now.Sub(s.probedAt)
	switch {
	case !s.known:
		return false
	case !p.up.Load():
		// The tunnel server waits for the client's probe: a NAT or firewall may open only
		// for a packet from the client's side.
		return p.client && (s.misses < fastProbes || pause >= slowProbePause)
	case !s.unanswered.IsZero():
		return true
	case p.client:
		// After the agent's address has changed, datagrams for it are lost until the
		// tunnel server receives a packet from the new address.
		return pause >= wire.Keepalive || (pause >= wire.ProbeInterval/2 && now.Sub(s.usedAt) < activeFor)
	default:
		return false
	}
}
