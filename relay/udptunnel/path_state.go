package udptunnel

import (
	"slices"
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
	// After that they are a second apart for outage, and then slowProbePause: UDP does
	// not pass, or not now.
	fastProbes     = 10
	outage         = time.Minute
	slowProbePause = 10 * time.Second
	// receiveTimeout is the silence after which a tunnel server considers a path
	// down, even if it has nothing to send.
	receiveTimeout = 3 * wire.Keepalive
	// shortAnswers is how many short probes in a row must be answered, and no longer
	// ones, for the packet size to be considered too large. Single probes are lost on
	// any path.
	shortAnswers = 3
	// quickTries is how many probes of the next size are sent probeRetry apart. After
	// that the pause doubles, up to sizePause.
	quickTries = 5
	sizePause  = time.Minute
)

// sizes are the packet sizes, as UDP payloads in bytes, that are tried one after
// another: for the least MTU of IPv6 (1,280), for the MTU of a WireGuard tunnel
// (1,420, over IPv4), and for that of Ethernet over IPv6 (1,500).
var sizes = [...]int{wire.PacketSize, 1392, 1452}

// sizeBits is how many low bits of a probe's number are the index of its size: an
// answer then tells which size has arrived.
const sizeBits = 2

// probeSize returns the index in sizes of the probe of a number.
func probeSize(number uint64) int { return int(number & (1<<sizeBits - 1)) }

// maxProbes is how many probes may be on their way: more than are sent within
// wire.PathTimeout.
const maxProbes = 32

// state is what is known of a path.
type state struct {
	peer       udpsock.Endpoint // Where to send.
	known      bool             // Whether that is known.
	ended      bool             // The path was closed.
	candidates []candidate      // Where the peer may be instead, the oldest first.

	lastProbe      uint64            // The number of the last probe,
	probedAt       time.Time         // and when it was sent.
	probes         [maxProbes]uint64 // The numbers of the last ones,
	probeCount     int               // and how many there have been.
	addressedAfter uint64            // The number of the last probe before the peer's address changed.
	unanswered     time.Time         // When the first probe after the last answer was sent; zero: there is none.
	misses         int               // How many probes have been sent since the last answer.
	receivedAt     time.Time         // When the last packet arrived.
	usedAt         time.Time         // When records of players last passed.
	size           int               // Index in sizes.
	sizedAfter     uint64            // The number of the last probe before size was set.
	shorter        int               // How many shorter probes in a row have been answered since.
	sizeTries      int               // How many probes of the next size have been sent,
	sizeProbeAt    time.Time         // and when the next is due.

	epoch         uint64    // The epoch of the packets sent,
	epochAt       time.Time // and when it began; zero: none has.
	epochAfter    uint64    // The number of the last probe before that.
	epochReceived bool      // Whether a probe has been answered that was sent since.
}

// duePackets are the numbers of the probes to be sent, in this order, of the least
// packet size, the current one and the next; 0: none.
type duePackets struct{ short, current, larger uint64 }

// next returns the number of the next probe, of a size by its index. Numbers increase by
// random steps: a client must not answer probes that it does not receive, or datagrams
// would be sent to an address that it has left. There are numbers for 2^30 probes.
func (s *state) next(size int) uint64 {
	step := random()>>32 + 1
	s.lastProbe = (s.lastProbe>>sizeBits+step)<<sizeBits | uint64(size)
	s.probes[s.probeCount%maxProbes] = s.lastProbe
	s.probeCount++
	return s.lastProbe
}

// retrySizes tries the next size soon, as if it had not been tried before.
func (s *state) retrySizes(now time.Time) {
	s.sizeTries = 0
	if soon := now.Add(probeRetry); s.sizeProbeAt.After(soon) {
		s.sizeProbeAt = soon
	}
}

// resize sets the packet size. It is called with mu held.
func (p *Path) resize(index int) {
	s := &p.state
	s.size, s.sizedAfter, s.shorter = index, s.lastProbe, 0
	s.sizeTries, s.sizeProbeAt = 0, time.Time{}
	p.budget.Store(int64(sizes[index] - seal.Overhead))
}

// shrink goes back to the size that arrives everywhere. It is called with mu held.
func (p *Path) shrink() {
	if p.state.size > 0 {
		p.resize(0)
	}
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

// answered records that a probe was answered. An answer that comes from another address
// than the probe was sent to shows nothing. It is called with mu held.
func (p *Path) answered(from *udpsock.Endpoint, number uint64) {
	s, size := &p.state, probeSize(number)
	if !s.known || (!p.client && s.peer != *from) || number <= s.addressedAfter || !slices.Contains(s.probes[:], number) {
		return
	}
	s.unanswered, s.misses = time.Time{}, 0
	s.epochReceived = s.epochReceived || number > s.epochAfter
	p.setUp(true)
	p.eager.Store(false)
	switch {
	case number <= s.sizedAfter: // Before a change of the route, perhaps.
	case size > s.size:
		p.resize(size)
	case size == s.size:
		s.shorter = 0
	default:
		if s.shorter++; s.shorter == shortAnswers {
			p.shrink()
		}
	}
}

// ratchet begins the next epoch of the packets sent if that is due, and notes when one has
// begun. It is called with sendMu and mu held.
func (p *Path) ratchet(now time.Time) {
	s := &p.state
	s.noteEpoch(p.sealer.Epoch(), now)
	// The other end opens no packet of the epoch after the next.
	if s.epochReceived && now.Sub(s.epochAt) >= wire.EpochTime {
		p.sealer.NextEpoch()
		s.noteEpoch(p.sealer.Epoch(), now)
	}
}

// noteEpoch notes the epoch of the next packet.
func (s *state) noteEpoch(epoch uint64, now time.Time) {
	if s.epoch != epoch || s.epochAt.IsZero() {
		s.epoch, s.epochAt, s.epochAfter, s.epochReceived = epoch, now, s.lastProbe, false
	}
}

// due returns the probes to send now, and where to. Used says that records of players
// are being sent. It is called with mu held.
func (p *Path) due(now time.Time, used bool) (probes duePackets, to udpsock.Endpoint, known bool) {
	s := &p.state
	if !s.known {
		return probes, to, false
	}
	if used {
		s.usedAt = now
	}
	p.expire(now)
	pause := wire.ProbeInterval
	if s.doubtful() {
		pause = probeRetry
	}
	if now.Sub(s.probedAt) >= pause {
		// The shorter first: of several that arrive together, the last is answered.
		if s.size > 0 && s.doubtful() {
			probes.short = s.next(0)
		}
		probes.current = p.newProbe(now)
	}
	if p.up.Load() && s.size < len(sizes)-1 && !now.Before(s.sizeProbeAt) {
		probes.larger = s.next(s.size + 1)
		s.sizeTries++
		s.sizeProbeAt = now.Add(sizeWait(s.sizeTries))
	}
	return probes, s.peer, true
}

// doubtful reports whether the last probe has not been answered, or whether shorter
// ones have and it has not.
func (s *state) doubtful() bool { return !s.unanswered.IsZero() || s.shorter > 0 }

// sizeWait is the pause after so many probes of the next size.
func sizeWait(tries int) time.Duration {
	wait := probeRetry
	for ; tries > quickTries && wait < sizePause; tries-- {
		wait *= 2
	}
	return min(wait, sizePause)
}

func (p *Path) newProbe(now time.Time) uint64 {
	s := &p.state
	s.probedAt = now
	s.misses++
	if s.unanswered.IsZero() {
		s.unanswered = now
	}
	p.eager.Store(p.client && !p.up.Load() && s.misses < fastProbes)
	return s.next(s.size)
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
	case silent >= wire.PathTimeout/2:
		s.retrySizes(now) // Probes of any size were lost.
	}
}

// Tick sends what is due at a time. The path's owner calls it every second.
func (p *Path) Tick(now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	p.mu.Lock()
	p.expire(now)
	p.halves.expire(now)
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
		return p.client && (s.misses < fastProbes || pause >= slowProbePause || now.Sub(s.receivedAt) < outage)
	case s.doubtful():
		return true
	case p.client:
		// After the agent's address has changed, datagrams for it are lost until the
		// tunnel server receives a packet from the new address.
		return pause >= wire.Keepalive || (pause >= wire.ProbeInterval/2 && now.Sub(s.usedAt) < activeFor)
	default:
		return false
	}
}
