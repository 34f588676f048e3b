package session

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// conn is a connection from an address.
type conn struct {
	net.Conn
	from   netip.Addr
	closed bool
}

func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 1)) }
func (c *conn) Close() error         { c.closed = true; return nil }

const limit = 8

var start = time.Unix(1e9, 0)

// fill returns a full limit and its connections, the n-th from the address that the
// format makes of n and of an empty string.
func fill(format string) (*unauthenticated, []*conn) {
	l := newUnauthenticated(limit)
	conns := make([]*conn, limit)
	for i := range conns {
		conns[i] = &conn{from: netip.MustParseAddr(fmt.Sprintf(format, i, ""))}
		l.add(conns[i], false, start)
	}
	return l, conns
}

func closed(conns []*conn) (n int) {
	for _, c := range conns {
		if c.closed {
			n++
		}
	}
	return n
}

func TestLimit_TheBusiestSourceGivesWay(t *testing.T) {
	for name, format := range map[string]string{
		"an address": "192.0.2.1%[2]s", "a /64": "2001:db8::%d%s", "a /56": "2001:db8:0:%d::1%s", "a /48": "2001:db8:0:%d00::1%s",
	} {
		t.Run(name, func(t *testing.T) {
			l, conns := fill(format)
			other := &conn{from: netip.MustParseAddr("198.51.100.1")}
			l.add(other, false, start)
			if other.closed || closed(conns) != 1 || !conns[0].closed {
				t.Errorf("closed: the other %v, %d of the flood", other.closed, closed(conns))
			}
		})
	}
}

func TestLimit_AmongEqualsTheOldGiveWay(t *testing.T) {
	l, conns := fill("192.0.2.%d%s")
	newest := &conn{from: netip.MustParseAddr("198.51.100.1")}
	l.add(newest, false, start.Add(time.Second))
	if !newest.closed || closed(conns) != 0 {
		t.Error("a peer that came at the same time was cut off")
	}
	later := &conn{from: netip.MustParseAddr("198.51.100.2")}
	l.add(later, false, start.Add(unauthenticatedPatience+time.Second))
	if later.closed || !conns[0].closed {
		t.Error("an old connection that has shown nothing keeps a newcomer out")
	}
}

func TestLimit_KnownSourcesHaveRoomOfTheirOwn(t *testing.T) {
	l, conns := fill("192.0.2.%d%s")
	known := make([]*conn, limit/2+1)
	for i := range known {
		known[i] = &conn{from: netip.MustParseAddr("198.51.100.1")}
		l.add(known[i], true, start)
	}
	if closed(known) != 1 || closed(conns) != limit/2 {
		t.Errorf("closed: %d of a known source, %d of others", closed(known), closed(conns))
	}
	for _, c := range known {
		l.remove(c)
	}
	more := make([]*conn, limit/2)
	for i := range more {
		more[i] = &conn{from: netip.MustParseAddr("203.0.113.1")}
		l.add(more[i], false, start)
	}
	if closed(more) != 0 {
		t.Error("what known sources leave is nobody's")
	}
}

func TestKnown_RemembersSourcesForAWhile(t *testing.T) {
	var k knownSources
	from, same := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if k.has(from, start) {
		t.Error("known from the beginning")
	}
	k.enter(from)
	k.enter(same)
	k.leave(from, start)
	if !k.has(from, start.Add(time.Hour)) {
		t.Error("forgotten while a peer is there")
	}
	k.leave(same, start)
	if !k.has(from, start.Add(5*time.Minute)) || k.has(from, start.Add(time.Hour)) {
		t.Error("not remembered, or for ever")
	}
	for i := range 20_000 {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		k.enter(a)
		k.leave(a, start)
	}
	if last := netip.AddrFrom4([4]byte{10, 0, 19_999 >> 8, 19_999 & 0xff}); !k.has(last, start) {
		t.Error("the last one is not remembered")
	}
}
