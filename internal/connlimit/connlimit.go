// Package connlimit bounds the connections of a listener whose peers nobody knows yet. Where
// there are too many, the source that has most gives way: one source with many silent
// connections locks out no other.
package connlimit

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/internal/sources"
)

// Reason is why a connection was closed.
type Reason string

// Reasons, all of them in Reasons.
const (
	Source  Reason = "source"  // Its source had too many.
	Busiest Reason = "busiest" // There were too many, and its source had most.
	Idle    Reason = "idle"    // There were too many, and it had been idle longest.
	Full    Reason = "full"    // There were too many, and none of them idle.
)

// Reasons are all reasons.
var Reasons = []Reason{Source, Busiest, Idle, Full}

// Options configures a Limiter.
type Options struct {
	// Limit is the maximum number of connections. Required.
	Limit int
	// PerSource is the maximum number of one source; the networks around it have more:
	// see sources.Width. 0 does not bound.
	PerSource int
	// ReplaceIdle closes the connection that has been idle longest where no source has more
	// than that of the newest. Without it the newest is closed then: many peers that come
	// back at once do not cut each other off.
	ReplaceIdle bool
}

// Limiter bounds connections. It closes those beyond its bounds: of the source that has
// most, idle ones first and oldest first. A connection is idle unless it serves a request.
// It is safe for concurrent use.
type Limiter struct {
	options Options

	mu     sync.Mutex
	conns  sources.Set[net.Conn]
	idle   list.List                  // Of net.Conn, idle longest first.
	places map[net.Conn]*list.Element // In idle.
	active map[net.Conn]int           // Requests that the others serve.
	closed map[Reason]uint64
}

// New returns a Limiter.
func New(options Options) *Limiter {
	return &Limiter{options: options, places: map[net.Conn]*list.Element{}, active: map[net.Conn]int{}, closed: map[Reason]uint64{}}
}

// Add adds a connection, and closes one if there are too many, perhaps this one.
func (l *Limiter) Add(c net.Conn) {
	from := addressOf(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	exceeds := l.options.PerSource > 0 && !l.conns.Within(from, l.options.PerSource)
	l.conns.Add(c, from)
	l.places[c] = l.idle.PushBack(c)
	switch {
	case exceeds:
		l.close(l.ofSource(from, c), Source)
	case l.conns.Len() > l.options.Limit:
		l.close(l.surplus(from, c))
	}
}

// ofSource returns the connection that gives way to c within its source.
func (l *Limiter) ofSource(from netip.Addr, c net.Conn) net.Conn {
	if !l.options.ReplaceIdle {
		return c
	}
	for other := range l.conns.Busiest() {
		if sources.Of(addressOf(other)) != sources.Of(from) {
			break
		}
		if l.places[other] != nil {
			return other
		}
	}
	return c
}

// surplus returns the connection that gives way where there are too many, c among them.
func (l *Limiter) surplus(from netip.Addr, c net.Conn) (net.Conn, Reason) {
	if l.conns.Most() > l.conns.Weight(from) {
		var oldest net.Conn
		for other := range l.conns.Busiest() {
			if l.places[other] != nil {
				return other, Busiest
			}
			if oldest == nil {
				oldest = other
			}
		}
		return oldest, Busiest
	}
	if oldest := l.idle.Front(); l.options.ReplaceIdle && oldest.Value.(net.Conn) != c {
		return oldest.Value.(net.Conn), Idle
	}
	return c, Full
}

// close closes a connection below TLS, whose own end would wait for a peer that does not
// read.
func (l *Limiter) close(c net.Conn, reason Reason) {
	l.closed[reason]++
	l.forget(c)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.Close()
}

// Begin notes that a connection serves a request, and End that it has served it.
func (l *Limiter) Begin(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.conns.Has(c) {
		return
	}
	l.active[c]++
	if place := l.places[c]; place != nil {
		l.idle.Remove(place)
		delete(l.places, c)
	}
}

// End is the end of a Begin.
func (l *Limiter) End(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active[c] == 0 {
		return // It was closed, or is upgraded.
	}
	if l.active[c]--; l.active[c] == 0 {
		delete(l.active, c)
		l.places[c] = l.idle.PushBack(c)
	}
}

// Remove notes that a connection is known from now on, or has ended.
func (l *Limiter) Remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(c)
}

func (l *Limiter) forget(c net.Conn) {
	l.conns.Remove(c)
	delete(l.active, c)
	if place := l.places[c]; place != nil {
		l.idle.Remove(place)
		delete(l.places, c)
	}
}

// Len returns the number of connections.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns.Len()
}

// Closed returns how many connections were closed for a reason.
func (l *Limiter) Closed(reason Reason) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed[reason]
}

func addressOf(c net.Conn) netip.Addr { return netaddr.OfTCP(c.RemoteAddr()).Addr() }
