package relaytest

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/relay"
)

// Server is a running tunnel server.
type Server struct {
	*relay.Server
	Address string // Of its listener.

	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Start runs a tunnel server on the loopback, for a panel. Options may be
// changed before it is made; change may be nil. It ends with the test.
func Start(t testing.TB, p *Panel, change func(*relay.Options)) *Server {
	t.Helper()
	l := listen(t)
	options := relay.Options{
		ID: p.Server, Dial: p.Dial, Listener: l, Version: "test", Platform: "test",
		Backoff: backoff.Exponential{Min: time.Millisecond, Max: 20 * time.Millisecond},
	}
	if change != nil {
		change(&options)
	}
	server, err := relay.New(options)
	if err != nil {
		t.Fatal(err)
	}
	// Reports of an earlier tunnel server say nothing about this one.
	p.forgetReports()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Server: server, Address: l.Addr().String(), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = server.Run(ctx)
	}()
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

// listen opens a TCP port whose number is free for UDP at the time.
func listen(t testing.TB) net.Listener {
	t.Helper()
	var config net.ListenConfig
	for range 100 {
		l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := config.ListenPacket(t.Context(), "udp", l.Addr().String())
		if err == nil {
			_ = u.Close()
			return l
		}
		_ = l.Close()
	}
	t.Fatal("no port is free for TCP and UDP")
	return nil
}

// Stop ends the tunnel server and returns what Run returned.
func (s *Server) Stop() error {
	s.cancel()
	<-s.done
	return s.err
}

// Done is closed when Run has returned; Err is what it returned.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is what Run returned, once Done is closed.
func (s *Server) Err() error { return s.err }

// AwaitStats returns once the tunnel server's counts fulfil a condition. There
// is no signal to wait on for these: it looks again and again.
func (s *Server) AwaitStats(t testing.TB, what string, met func(relay.Stats) bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !met(s.Stats()); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come about: %+v", what, s.Stats())
		}
	}
}

// AwaitFingerprint returns once the tunnel server shows a key. There is no signal
// to wait on for this either.
func (s *Server) AwaitFingerprint(t testing.TB, fingerprint string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); s.Fingerprint() != fingerprint; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the key %s is not shown, but %s", fingerprint, s.Fingerprint())
		}
	}
}

// FreePort returns a port that is free for TCP and UDP at the time.
func FreePort(t testing.TB) int {
	t.Helper()
	var config net.ListenConfig
	for range 100 {
		l, err := config.Listen(t.Context(), "tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := int(netip.MustParseAddrPort(l.Addr().String()).Port())
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// Allocation returns an allocation of a client on a port.
func Allocation(id int64, client uuid.UUID, protocol types.Protocol, port int) types.ServerAllocation {
	return types.ServerAllocation{ID: id, ClientID: client, Protocol: protocol, Port: port}
}
