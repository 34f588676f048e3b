package session

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/internal/sources"
)

// unauthenticatedPatience is how old a connection is, at least, that is closed for one
// of a source that has as many. A peer that is willing has authenticated by then, so that
// many peers that come at the same time do not cut each other off.
const unauthenticatedPatience = 2 * time.Second

// unauthenticated bounds the connections to the listener that have shown no ticket or
// secret. Those of known sources and those of others may have half of the limit each, and
// what the other half leaves. Beyond it the oldest connection of the source that has most
// is closed. Where no source has more than that of the newest one, the oldest of all is
// closed if it is older than unauthenticatedPatience, otherwise the newest.
//
// It is safe for concurrent use. Its methods take constant time.
type unauthenticated struct {
	max int

	mu    sync.Mutex
	conns map[net.Conn]*member
	known group
	other group
}

// group is a part of the connections.
type group struct {
	bySource sources.Set[*member]
	byAge    list.List // Of members, oldest first.
}

type member struct {
	conn    net.Conn
	source  netip.Addr
	since   time.Time
	group   *group
	element *list.Element // Of group.byAge.
}

// newUnauthenticated bounds them to a limit.
func newUnauthenticated(limit int) *unauthenticated {
	return &unauthenticated{max: limit, conns: map[net.Conn]*member{}}
}

// add adds a connection that was accepted at a time, and says whether its source is
// known. It closes a connection if there are more than the limit.
func (l *unauthenticated) add(c net.Conn, known bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &member{conn: c, source: netaddr.OfTCP(c.RemoteAddr()).Addr(), since: now, group: &l.other}
	if known {
		m.group = &l.known
	}
	m.group.bySource.Add(m, m.source)
	m.element = m.group.byAge.PushBack(m)
	l.conns[c] = m
	if len(l.conns) <= l.max {
		return
	}
	surplus := l.surplus(m, now)
	l.forget(surplus)
	c = surplus.conn
	// Below TLS, whose own end would wait for a peer that does not read.
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.Close()
}

// surplus returns the connection to close now that the newest is one too many.
func (l *unauthenticated) surplus(newest *member, now time.Time) *member {
	g := &l.other
	if g.bySource.Len() <= l.max/2 {
		g = &l.known
	}
	if newest.group == g && g.bySource.Weight(newest.source) >= g.bySource.Most() {
		if oldest, ok := g.byAge.Front().Value.(*member); ok && now.Sub(oldest.since) > unauthenticatedPatience {
			return oldest
		}
		return newest
	}
	for m := range g.bySource.Busiest() {
		return m
	}
	return newest // There is none: g has more than half of the limit.
}

// remove notes that a connection has shown who it is of, or has ended.
func (l *unauthenticated) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.conns[c]; m != nil { // Otherwise it was surplus.
		l.forget(m)
	}
}

func (l *unauthenticated) forget(m *member) {
	delete(l.conns, m.conn)
	m.group.bySource.Remove(m)
	m.group.byAge.Remove(m.element)
}
