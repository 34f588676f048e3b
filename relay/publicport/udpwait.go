package publicport

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// maxWaiting and maxWaitingBytes bound the datagrams of a port that wait.
const (
	maxWaiting      = 8192
	maxWaitingBytes = 4 << 20
)

// atClients are the players of a UDP port at the addresses of tunnel clients: see
// Limits.Unanswered. It is guarded by the lock of its port.
type atClients struct {
	limit      int                            // Of unanswered.
	unanswered map[*udptunnel.ServerFlow]bool // As far as known.
	waiting    []waitingDatagram              // Of players without a flow, in their order,
	bytes      int                            // and their bytes.
	waits      atomic.Bool                    // There are waiting ones.
}

// waitingDatagram is a datagram whose flow may not open yet.
type waitingDatagram struct {
	key     flowKey
	to      udpsock.Endpoint
	payload []byte
	until   time.Time
}

func newAtClients(limit int) atClients {
	return atClients{limit: limit, unanswered: map[*udptunnel.ServerFlow]bool{}}
}

// mayAwaitAnswer reports whether another flow of a player at a tunnel client may open.
// It is called with mu held.
func (p *udpPort) mayAwaitAnswer() bool {
	c := &p.atClients
	if len(c.unanswered) < c.limit {
		return true
	}
	before := len(c.unanswered)
	maps.DeleteFunc(c.unanswered, func(f *udptunnel.ServerFlow, _ bool) bool { return f.Answered() })
	// One more for each, since the game answers.
	c.limit = min(c.limit+before-len(c.unanswered), answeringFactor*p.ports.o.Limits.Unanswered)
	return len(c.unanswered) < c.limit
}

// wait keeps a datagram, or drops and counts it. It is called with mu held.
func (p *udpPort) wait(key flowKey, to udpsock.Endpoint, payload []byte) {
	c := &p.atClients
	if len(c.waiting) >= maxWaiting || c.bytes+len(payload) > maxWaitingBytes {
		p.refusals.datagrams(RefusedLoop, 1)
		return
	}
	c.waiting = append(c.waiting, waitingDatagram{
		key: key, to: to, payload: append([]byte(nil), payload...),
		until: time.Now().Add(p.ports.o.Limits.UnansweredWait),
	})
	c.bytes += len(payload)
	c.waits.Store(true)
}

// keep makes datagrams the ones that wait. It is called with mu held.
func (c *atClients) keep(waiting []waitingDatagram) {
	c.waiting, c.bytes = waiting, 0
	for i := range waiting {
		c.bytes += len(waiting[i].payload)
	}
	c.waits.Store(len(waiting) > 0)
}

// expireWaiting drops and counts the datagrams that have waited for too long.
func (p *udpPort) expireWaiting(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []waitingDatagram
	for _, d := range p.atClients.waiting {
		if now.Before(d.until) {
			left = append(left, d)
			continue
		}
		p.refusals.datagrams(RefusedLoop, 1)
		p.ports.loops.say(p.allocation.ID, d.key.source)
	}
	p.atClients.keep(left)
}

// openWaiting opens the flows of datagrams that wait, as far as they may.
func (p *udpPort) openWaiting() {
	c := &p.atClients
	p.mu.Lock()
	if len(c.waiting) == 0 || !p.mayAwaitAnswer() {
		p.mu.Unlock()
		return
	}
	var in incoming
	now := time.Now()
	left, full := c.waiting[:0], false
	for _, d := range c.waiting {
		if f := p.flows[d.key]; f != nil {
			f.Touch(udptunnel.Ticks(now))
			in.datagrams.Add(f, d.payload)
		} else if full || !p.open(d.key, d.to, d.payload, now, &in, true) {
			full = true
			left = append(left, d)
		}
	}
	clear(c.waiting[len(left):])
	c.keep(left)
	p.mu.Unlock()
	in.send()
}
