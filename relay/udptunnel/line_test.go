package udptunnel_test

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/seal/sealtest"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// line forwards packets between the ends of a path.
type line struct {
	server netip.AddrPort

	mu    sync.Mutex
	drop  func(packet []byte) bool // nil drops nothing.
	steal func(packet []byte) bool // The same of packets to the server.
	far   *net.UDPConn             // The client's address at the server.
	dial  func()                   // Changes it.
}

// lose has the line drop the packets that a function returns true for; nil: none.
func (l *line) lose(drop func(packet []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop = drop
}

// stealing has the line show a function each packet to the server, and drop those that it
// returns true for.
func (l *line) stealing(steal func(packet []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steal = steal
}

// rebind gives the client another address at the server. Nothing gets through to the one
// before.
func (l *line) rebind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.far.Close()
	l.dial()
}

// carry forwards to a server and returns where the client reaches it.
func (l *line) carry(t testing.TB, server netip.AddrPort) netip.AddrPort {
	t.Helper()
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l.server = server
	var client netip.AddrPort
	var forwarding sync.WaitGroup
	pass := func(from *net.UDPConn, to func([]byte, netip.AddrPort)) {
		b := make([]byte, 2048)
		for {
			n, sender, err := from.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			l.mu.Lock()
			if l.drop == nil || !l.drop(b[:n]) {
				to(b[:n], sender)
			}
			l.mu.Unlock()
		}
	}
	l.dial = func() {
		far, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
		if err != nil {
			t.Error(err)
			return
		}
		l.far = far
		forwarding.Go(func() {
			pass(far, func(packet []byte, _ netip.AddrPort) { _, _ = near.WriteToUDPAddrPort(packet, client) })
		})
	}
	l.dial()
	forwarding.Go(func() {
		pass(near, func(packet []byte, sender netip.AddrPort) {
			client = sender
			if l.steal == nil || !l.steal(packet) {
				_, _ = l.far.Write(packet)
			}
		})
	})
	t.Cleanup(func() {
		_ = near.Close()
		l.mu.Lock()
		_ = l.far.Close()
		l.mu.Unlock()
		forwarding.Wait()
	})
	return near.LocalAddr().(*net.UDPAddr).AddrPort()
}

// pair returns both ends of a path that is up, which join split datagrams.
func pair(t testing.TB, host string) (client, server *end) {
	t.Helper()
	client, server = newEnd(), newEnd()
	client.split, server.split = true, true
	connect(t, host, nil, client, server)
	return client, server
}

// connect makes ends those of a path that is up, over a line; nil: directly.
func connect(t testing.TB, host string, over *line, client, server *end) {
	t.Helper()
	theirs, ours := sealtest.Ratchet(t)
	socket, err := udptunnel.ListenPackets(t.Context(), net.JoinHostPort(host, "0"), &server.counters)
	if err != nil {
		t.Skipf("listen on %s: %v", host, err)
	}
	var serving sync.WaitGroup
	serving.Go(socket.Serve)
	if server.Path, err = socket.NewPath(server.options(ours)); err != nil {
		t.Fatal(err)
	}
	at := socket.Address()
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
	}
	if over != nil {
		at = over.carry(t, at)
	}
	if client.Path, err = udptunnel.DialPath(t.Context(), at, client.options(theirs), &client.counters); err != nil {
		t.Fatal(err)
	}
	serving.Go(client.Serve)
	t.Cleanup(func() {
		client.Close()
		server.Close()
		socket.Close()
		serving.Wait()
		if n := client.counters.Stats().Up + server.counters.Stats().Up; n != 0 {
			t.Errorf("%d paths are up when all are closed", n)
		}
	})
	client.Tick(time.Now())
	await.Until(t, "the path", func() bool { return client.Up() && server.Up() })
}
