package link_test

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// testNAT forwards UDP packets between an agent and a tunnel server, as a home router
// does: to the tunnel server they come from a port of the NAT.
type testNAT struct {
	t      *testing.T
	server *net.UDPAddr
	inner  *net.UDPConn // Where the agent sends to.
	work   sync.WaitGroup

	cut     atomic.Bool // It drops every packet.
	twice   atomic.Bool // It forwards every packet twice.
	damage  atomic.Bool // It sends a damaged copy before every packet to the tunnel server.
	reflect atomic.Bool // It also returns every packet of the agent to it.

	mu     sync.Mutex
	client netip.AddrPort
	outer  *net.UDPConn // nil before the first packet.
	all    []*net.UDPConn
}

// newTestNAT listens before there is a tunnel server, which serve sets.
func newTestNAT(t *testing.T) *testNAT {
	t.Helper()
	inner, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &testNAT{t: t, inner: inner}
	t.Cleanup(func() {
		_ = inner.Close()
		n.mu.Lock()
		for _, c := range n.all {
			_ = c.Close()
		}
		n.mu.Unlock()
		n.work.Wait()
	})
	return n
}

func (n *testNAT) port() int { return n.inner.LocalAddr().(*net.UDPAddr).Port }

func (n *testNAT) serve(server string) {
	a, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		n.t.Fatal(err)
	}
	n.server = a
	n.work.Go(n.out)
}

// rebind gives the agent another public address, from its next packet on.
func (n *testNAT) rebind() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outer = nil
}

// out forwards packets of the agent.
func (n *testNAT) out() {
	b := make([]byte, 64<<10)
	for {
		size, from, err := n.inner.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n.cut.Load() {
			continue
		}
		n.mu.Lock()
		n.client = from
		if n.outer == nil {
			if n.outer, err = net.DialUDP("udp", nil, n.server); err != nil {
				n.t.Error(err)
				n.mu.Unlock()
				return
			}
			n.all = append(n.all, n.outer)
			outer := n.outer
			n.work.Go(func() { n.in(outer) })
		}
		outer := n.outer
		n.mu.Unlock()
		if n.damage.Load() {
			b[size-1] ^= 1
			// From another address, which must not become the agent's.
			if forger, err := net.DialUDP("udp", nil, n.server); err == nil {
				_, _ = forger.Write(b[:size])
				_ = forger.Close()
			}
			b[size-1] ^= 1
		}
		_, _ = outer.Write(b[:size])
		if n.twice.Load() {
			_, _ = outer.Write(b[:size])
		}
		if n.reflect.Load() {
			_, _ = n.inner.WriteToUDPAddrPort(b[:size], from)
		}
	}
}

// in forwards packets from the tunnel server to one of the agent's addresses.
func (n *testNAT) in(outer *net.UDPConn) {
	b := make([]byte, 64<<10)
	for {
		size, err := outer.Read(b)
		if err != nil {
			return
		}
		n.mu.Lock()
		client, current := n.client, n.outer == outer
		n.mu.Unlock()
		if n.cut.Load() || !current {
			continue
		}
		_, _ = n.inner.WriteToUDPAddrPort(b[:size], client)
		if n.twice.Load() {
			_, _ = n.inner.WriteToUDPAddrPort(b[:size], client)
		}
	}
}
