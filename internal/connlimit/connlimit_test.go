package connlimit_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/connlimit"
)

// conn is a connection from an address.
type conn struct {
	net.Conn
	from   string
	closed bool
}

func (c *conn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1))
}

func (c *conn) Close() error {
	c.closed = true
	return nil
}

// add adds n connections from addresses.
func add(l *connlimit.Limiter, n int, from func(i int) string) []*conn {
	conns := make([]*conn, n)
	for i := range conns {
		conns[i] = &conn{from: from(i)}
		l.Add(conns[i])
	}
	return conns
}

func closed(conns []*conn) (n int) {
	for _, c := range conns {
		if c.closed {
			n++
		}
	}
	return n
}

func TestLimiter_TheBusiestSourceGivesWay(t *testing.T) {
	for name, from := range map[string]func(i int) string{
		"one address": func(int) string { return "192.0.2.1" },
		"a /64":       func(i int) string { return fmt.Sprintf("2001:db8::%x", i) },
		"a /48":       func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) },
	} {
		for _, replace := range []bool{false, true} {
			l := connlimit.New(connlimit.Options{Limit: 10, ReplaceIdle: replace})
			flood := add(l, 10, from)
			others := add(l, 4, func(i int) string { return fmt.Sprintf("198.51.100.%d", i) })
			if closed(flood) != 4 || !flood[0].closed || !flood[3].closed || closed(others) != 0 || l.Len() != 10 {
				t.Errorf("%s: %d of the flood and %d others are closed", name, closed(flood), closed(others))
			}
			if l.Closed(connlimit.Busiest) != 4 {
				t.Errorf("%s: %d are counted", name, l.Closed(connlimit.Busiest))
			}
		}
	}
}

func TestLimiter_AmongEqualsTheNewestOrTheIdlestGivesWay(t *testing.T) {
	each := func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }
	l := connlimit.New(connlimit.Options{Limit: 10})
	conns := add(l, 12, each)
	if closed(conns) != 2 || !conns[10].closed || !conns[11].closed || l.Closed(connlimit.Full) != 2 {
		t.Errorf("%d are closed", closed(conns))
	}
	l = connlimit.New(connlimit.Options{Limit: 10, ReplaceIdle: true})
	conns = add(l, 10, each)
	for i := range 9 {
		l.Begin(conns[i])
	}
	l.End(conns[3])
	more := add(l, 3, func(i int) string { return fmt.Sprintf("198.51.100.%d", i) })
	if !conns[9].closed || !conns[3].closed || !more[0].closed || closed(conns) != 2 || l.Closed(connlimit.Idle) != 3 {
		t.Errorf("%d and %d are closed", closed(conns), closed(more))
	}
	l.Begin(more[1])
	l.Begin(more[2])
	last := add(l, 1, func(int) string { return "203.0.113.1" })
	if !last[0].closed || l.Closed(connlimit.Full) != 1 {
		t.Error("none is idle, and the newest is not closed")
	}
	again := add(l, 1, func(int) string { return "198.51.100.2" })
	if !again[0].closed {
		t.Error("a source with more than others took a place")
	}
	for _, c := range append(conns, more...) {
		l.End(c) // Some of them are closed already.
		l.Remove(c)
	}
	if l.Len() != 0 {
		t.Errorf("%d are left", l.Len())
	}
}

func TestLimiter_BoundsASourceAndTheNetworksAroundIt(t *testing.T) {
	for name, test := range map[string]struct {
		from func(i int) string
		want int
	}{
		"one address": {func(int) string { return "192.0.2.1" }, 5},
		"a /64":       {func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 5},
		"a /56":       {func(i int) string { return fmt.Sprintf("2001:db8:1:1%02x::1", i) }, 10},
		"a /48":       {func(i int) string { return fmt.Sprintf("2001:db8:1:%x00::1", i) }, 20},
		"a /24":       {func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 40},
	} {
		l := connlimit.New(connlimit.Options{Limit: 100, PerSource: 5, ReplaceIdle: true})
		if open := 40 - closed(add(l, 40, test.from)); open != test.want || l.Closed(connlimit.Source) != uint64(40-test.want) {
			t.Errorf("%s has %d connections, want %d", name, open, test.want)
		}
	}
}
