package relay_test

import (
	"net"
	"testing"

	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestListener_OneSourceOfSilentConnectionsKeepsNobodyElseOut(t *testing.T) {
	const limit = 8
	p, s, client, port := start(t, func(o *relay.Options) { o.Limits.Unauthenticated = limit })
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 3 * limit {
		c, err := elsewhere.Dial("tcp", s.Address)
		if err != nil {
			t.Skip(err)
		}
		defer c.Close()
	}
	l := openLink(t, p, s, client, 1)
	join(t, port)
	l.next(wire.LinkDial)
	if _, _, err := l.data(wire.KindStream); err != nil {
		t.Error(err)
	}
}

func TestListener_AFloodFromAnywhereKeepsNoLinkedSourceOut(t *testing.T) {
	const limit = 8
	p, s, client, port := start(t, func(o *relay.Options) { o.Limits.Unauthenticated = limit })
	l := openLink(t, p, s, client, 1)
	// None of these has more than the tunnel client.
	for i := range byte(4 * limit) {
		elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, i+1)}}
		c, err := elsewhere.Dial("tcp", s.Address)
		if err != nil {
			t.Skip(err)
		}
		defer c.Close()
	}
	join(t, port)
	l.next(wire.LinkDial)
	if _, _, err := l.data(wire.KindStream); err != nil {
		t.Errorf("open a data connection: %v", err)
	}
	_ = l.ws.Close()
	s.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 })
	openLink(t, p, s, client, 1)
}
