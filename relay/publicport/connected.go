package publicport

import (
	"net/netip"
	"sync"
)

// connected are the addresses with TCP connections on public ports. A TCP handshake
// shows that the address is its sender's, which a datagram does not. It is safe for
// concurrent use. The zero value is empty and ready to use.
type connected struct {
	mu    sync.RWMutex
	count map[netip.Addr]int
}

func (c *connected) add(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[netip.Addr]int{}
	}
	c.count[a]++
}

func (c *connected) remove(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[a]--; c.count[a] == 0 {
		delete(c.count, a)
	}
}

func (c *connected) has(a netip.Addr) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.count[a] > 0
}
