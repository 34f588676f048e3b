package relay

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// strangers are the connections to the listener that have not shown a ticket or
// secret, no more than a limit. Of those beyond it the one is closed that came first
// from where most have come: who opens many and says nothing keeps out nobody else.
// Where no source has more than the one that opens another, that other is closed, so
// that a crowd of tunnel clients that come back at once do not cut each other off.
type strangers struct {
	limit int

	mu    sync.Mutex
	count int
	from  map[netip.Addr][]net.Conn // By source, in the order in which they came.
}

func newStrangers(limit int) *strangers {
	return &strangers{limit: limit, from: map[netip.Addr][]net.Conn{}}
}

func (s *strangers) enter(c net.Conn) {
	source := sourceOf(tcpAddrPort(c.RemoteAddr()).Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from[source] = append(s.from[source], c)
	if s.count++; s.count <= s.limit {
		return
	}
	most := source
	for other, conns := range s.from {
		if len(conns) > len(s.from[most]) {
			most = other
		}
	}
	surplus := c
	if most != source {
		surplus = s.from[most][0]
	}
	s.forget(surplus, most)
	// Below TLS, whose own end would wait for a peer that does not read.
	if t, ok := surplus.(*tls.Conn); ok {
		surplus = t.NetConn()
	}
	_ = surplus.Close()
}

// leave notes that a connection has been upgraded or has ended.
func (s *strangers) leave(c net.Conn) {
	source := sourceOf(tcpAddrPort(c.RemoteAddr()).Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(c, source)
}

// forget is called with mu held.
func (s *strangers) forget(c net.Conn, source netip.Addr) {
	conns := s.from[source]
	i := slices.Index(conns, c)
	if i < 0 {
		return // Closed as surplus.
	}
	s.count--
	if len(conns) == 1 {
		delete(s.from, source)
		return
	}
	s.from[source] = slices.Delete(conns, i, i+1)
}
