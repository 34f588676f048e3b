package session

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// unauthenticated bounds the connections to the listener that have shown no ticket
// or secret. Beyond the limit the oldest connection of the source that has most is
// closed, so that one source with many silent connections locks out no other. Where no source
// has more than that of the newest connection, the newest is closed: many tunnel
// clients that come back at once do not cut each other off.
type unauthenticated struct {
	limit int

	mu    sync.Mutex
	count int
	conns map[netip.Addr][]net.Conn // By source, oldest first.
}

func newUnauthenticated(limit int) *unauthenticated {
	return &unauthenticated{limit: limit, conns: map[netip.Addr][]net.Conn{}}
}

func (u *unauthenticated) add(c net.Conn) {
	source := netaddr.Source(netaddr.OfTCP(c.RemoteAddr()).Addr())
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conns[source] = append(u.conns[source], c)
	if u.count++; u.count <= u.limit {
		return
	}
	most := source
	for other, conns := range u.conns {
		if len(conns) > len(u.conns[most]) {
			most = other
		}
	}
	surplus := c
	if most != source {
		surplus = u.conns[most][0]
	}
	u.forget(surplus, most)
	// Below TLS, whose own end would wait for a peer that does not read.
	if t, ok := surplus.(*tls.Conn); ok {
		surplus = t.NetConn()
	}
	_ = surplus.Close()
}

// remove notes that a connection has been upgraded or has ended.
func (u *unauthenticated) remove(c net.Conn) {
	source := netaddr.Source(netaddr.OfTCP(c.RemoteAddr()).Addr())
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget(c, source)
}

// forget is called with mu held.
func (u *unauthenticated) forget(c net.Conn, source netip.Addr) {
	conns := u.conns[source]
	i := slices.Index(conns, c)
	if i < 0 {
		return // Closed as surplus.
	}
	u.count--
	if len(conns) == 1 {
		delete(u.conns, source)
		return
	}
	u.conns[source] = slices.Delete(conns, i, i+1)
}
