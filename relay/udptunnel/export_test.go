package udptunnel

import (
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Put is what Selector does with records; it reports whether they were queued.
func (p *Path) Put(records ...wire.Record) bool { return p.put(records) == taken }

// Take has the path take a packet as its socket does, from an address that leads
// nowhere.
func (p *Path) Take(data []byte) {
	r := &receiver{socket: p.socket}
	from := p.socket.conn.Endpoint(p.socket.Address())
	r.take(data, &from)
	r.flush()
}

// Age has the path see times that are so much later.
func (p *Path) Age(by time.Duration) { p.Tick(time.Now().Add(by)) }

// PacketRoom is how many bytes of records a packet has room for now.
func (p *Path) PacketRoom() int { return int(p.budget.Load()) }

// Use has the path do what is due at a time that is so much later, as if a player's
// datagram were sent then.
func (p *Path) Use(by time.Duration) {
	if p.up.Load() || p.eager.Load() {
		p.sendMu.Lock()
		defer p.sendMu.Unlock()
		p.list = p.list[:0]
		p.transmit(time.Now().Add(by), true)
	}
}
