package udptunnel

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

const (
	// maxCandidates is how many addresses of a path are validated at a time: the newest.
	maxCandidates = 4
	// candidateTimeout is how long the answer of an address may take. The next packet from
	// there is then challenged with another number.
	candidateTimeout = 3 * time.Second
	// maxAmplification is how many bytes are sent to an address that is not validated, for
	// each one that came from there (RFC 9000 section 8.1).
	maxAmplification = 3
	// challengeSize is the size of a challenge without padding, in bytes, at most: a probe
	// with the longest number. It is not more than is allowed after the shortest packet.
	challengeSize = seal.Overhead + 1 + binary.MaxVarintLen64 + 1
)

// candidate is an address that packets of the tunnel client name as their source.
// Nothing shows yet that it is the client's: the source of a packet is not
// authenticated, and a packet can be held back or copied and sent from elsewhere.
type candidate struct {
	address        udpsock.Endpoint
	since          time.Time
	challenge      uint64    // The number of the probes sent there; it must not be guessable.
	sentAt         time.Time // When the last one was,
	short          bool      // and whether any was shorter than a packet may be.
	received, sent int       // Bytes from there and to there.
	probe          uint64    // The last probe that came from there,
	probed         bool      // if any did.
}

// packetReceived records that an authentic packet has arrived, and reports whether its
// source is an address that is not validated. It is called with mu held.
func (p *Path) packetReceived(from *udpsock.Endpoint, size int, newest bool, now time.Time) bool {
	s := &p.state
	s.receivedAt = now
	switch {
	case p.client || s.ended:
		return false
	case !s.known || s.peer != *from:
		return s.candidateReceived(from, size, newest, now)
	case newest && len(s.candidates) > 0:
		// The client is where its newest packet comes from.
		s.candidates = s.candidates[:0]
	}
	return false
}

// candidateReceived adds a packet to the account of its source, which becomes a
// candidate with the newest packet. It reports whether it is one.
func (s *state) candidateReceived(from *udpsock.Endpoint, size int, newest bool, now time.Time) bool {
	c := s.candidate(from, now)
	if c == nil {
		if !newest {
			return false // The client has left this address, or its packets were overtaken.
		}
		c = s.addCandidate(from, now)
	}
	c.received += size
	return true
}

// candidate returns the candidate of an address, or nil.
func (s *state) candidate(address *udpsock.Endpoint, now time.Time) *candidate {
	s.candidates = slices.DeleteFunc(s.candidates, func(c candidate) bool { return now.Sub(c.since) > candidateTimeout })
	for i := range s.candidates {
		if s.candidates[i].address == *address {
			return &s.candidates[i]
		}
	}
	return nil
}

func (s *state) addCandidate(address *udpsock.Endpoint, now time.Time) *candidate {
	if len(s.candidates) == maxCandidates {
		s.candidates = slices.Delete(s.candidates, 0, 1)
	}
	s.candidates = append(s.candidates, candidate{address: *address, since: now, challenge: random()})
	return &s.candidates[len(s.candidates)-1]
}

// random returns a number that nobody can predict.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // It never fails.
	return binary.BigEndian.Uint64(b[:])
}

// validate makes a candidate the peer if number answers its challenge. An answer that
// comes from elsewhere validates nothing. It is called with mu held.
func (p *Path) validate(from *udpsock.Endpoint, number uint64, now time.Time) (validated candidate, ok bool) {
	s := &p.state
	c := s.candidate(from, now)
	if c == nil || c.sent == 0 || c.challenge != number {
		return candidate{}, false
	}
	validated = *c
	s.candidates = s.candidates[:0]
	if s.known {
		p.counters.Moved.Add(1)
		// If somebody forwards the client's packets faster than they travel, the client
		// is still there, and its answer moves the path back (RFC 9000 section 9.3.3).
		s.addCandidate(&s.peer, now).received = challengeSize
	}
	s.peer, s.known = validated.address, true
	// Packets are sent there at once; a probe must show how long they may be, and that
	// the least size arrives if the challenge has not.
	s.unanswered, s.misses, s.probedAt = time.Time{}, 0, time.Time{}
	s.addressedAfter = s.lastProbe
	p.resize(0)
	if !validated.short {
		p.setUp(true)
	}
	return validated, true
}

// challenge sends the challenges that are due.
func (p *Path) challenge(now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	for {
		var number uint64
		size := 0
		p.mu.Lock()
		if c := p.state.dueCandidate(now); c != nil {
			number, size, p.to = c.challenge, c.nextSize(), c.address
			c.sentAt, c.sent, c.short = now, c.sent+size, c.short || size < sizes[0]
		}
		p.mu.Unlock()
		if size == 0 {
			return
		}
		p.list = append(p.list[:0], probePacket(number, size))
		// If it was not sent, the next packet from there brings the next one.
		_, _ = p.write()
	}
}

// dueCandidate returns a candidate to challenge now, or nil.
func (s *state) dueCandidate(now time.Time) *candidate {
	for i := range s.candidates {
		if c := &s.candidates[i]; now.Sub(c.sentAt) >= probeRetry && c.nextSize() > 0 {
			return c
		}
	}
	return nil
}

// nextSize returns the size of the next challenge, in bytes; 0: none may be sent. It has
// the least packet size, as RFC 9000 section 8.2.1 asks for, unless more would have been
// sent than was received.
func (c *candidate) nextSize() int {
	switch {
	case c.sent+sizes[0] <= c.received:
		return sizes[0]
	case c.sent+challengeSize <= maxAmplification*c.received:
		return challengeSize
	default:
		return 0
	}
}
