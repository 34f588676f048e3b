package channel

import (
	"strconv"
	"sync"
	"time"
)

// pings measure the round trip of a channel. The zero value is ready to use.
type pings struct {
	mu        sync.Mutex
	count     uint64
	last      string // The payload of the last ping; "" once it is answered.
	sent      time.Time
	roundTrip time.Duration
}

// next returns the payload of the next ping, which is sent now: its number, which tells its
// answer from a late one to the ping before.
func (p *pings) next(now time.Time) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	p.last, p.sent = strconv.FormatUint(p.count, 10), now
	return []byte(p.last)
}

// answered notes an answer of the peer.
func (p *pings) answered(payload string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if payload == p.last && payload != "" {
		p.last, p.roundTrip = "", now.Sub(p.sent)
	}
}

// RoundTrip is how long the peer took to answer the last ping that it has answered; 0: none
// yet. It includes what was queued before the ping and the answer. A [Options.Lazy] end
// rarely pings.
func (c *Conn) RoundTrip() time.Duration {
	c.pings.mu.Lock()
	defer c.pings.mu.Unlock()
	return c.pings.roundTrip
}
