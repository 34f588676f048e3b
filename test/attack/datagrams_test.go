//go:build linux

package attack

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// datagramRate is how many datagrams a second an attacker sends: see connectionRate. In
// the 30 s of make attack they are 18,000.
const datagramRate = 600

// query is what attackers send.
var query = []byte("query: who is playing on this server?")

// sendDatagrams sends one datagram from each of many sockets until ctx ends, each from
// from(n). Answers are not read. It returns how many were sent.
func sendDatagrams(ctx context.Context, t *testing.T, port int, from func(n int) netip.Addr) (sent int64) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	to := &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(server4).As4()}
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return sent
		case <-ticker.C:
		}
		for range datagramRate / 100 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Errorf("socket: %v", err)
				return sent
			}
			if unix.Bind(fd, &unix.SockaddrInet4{Addr: from(n).As4()}) == nil && unix.Sendto(fd, query, 0, to) == nil {
				sent++
			}
			n++
			_ = unix.Close(fd)
		}
	}
}

const (
	// newcomerPause is that between players who join during a flood, and servedWithin how
	// long each may take to be answered, sending every resendPause.
	newcomerPause = 500 * time.Millisecond
	servedWithin  = time.Second
	resendPause   = 200 * time.Millisecond
)

// serveNewcomers has players join one after another until ctx ends, the n-th from from(n),
// and fails the test if one is not served in time.
func serveNewcomers(ctx context.Context, t *testing.T, address string, from func(n int) netip.Addr) {
	ticker := time.NewTicker(newcomerPause)
	defer ticker.Stop()
	var worst time.Duration
	served := 0
	for {
		took, err := serveNewcomer(t.Context(), address, from(served))
		if err != nil {
			t.Errorf("a newcomer, after %d were served: %v", served, err)
			return
		}
		worst = max(worst, took)
		served++
		select {
		case <-ctx.Done():
			t.Logf("%d newcomers were served within %v", served, worst.Round(time.Microsecond))
			return
		case <-ticker.C:
		}
	}
}

// serveNewcomer returns how long a new player takes to be answered.
func serveNewcomer(ctx context.Context, address string, from netip.Addr) (time.Duration, error) {
	conn, err := dialerFrom(from).DialContext(ctx, "udp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began := time.Now()
	for answer := make([]byte, 2*len(query)); ; {
		if _, err := conn.Write(query); err != nil {
			return 0, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(resendPause)); err != nil {
			return 0, err
		}
		_, err := conn.Read(answer)
		if took := time.Since(began); err == nil || took > servedWithin {
			return took, err
		}
	}
}

// newcomer is the n-th of a hundred addresses that attack nobody.
func newcomer(n int) netip.Addr { return attacker(100 + n%100) }

func TestPlayers_EndureFloodsOfDatagrams(t *testing.T) {
	for name, from := range map[string]func(n int) netip.Addr{
		"answered, of three sources": func(n int) netip.Addr { return attacker(n % 3) },
		"answered, forged":           forged,
	} {
		t.Run(name, func(t *testing.T) {
			w := sharedWorld(t)
			w.endure(t, func(ctx context.Context) func() {
				var work sync.WaitGroup
				var sent int64
				work.Go(func() { sent = sendDatagrams(ctx, t, w.udp.Port, from) })
				work.Go(func() { serveNewcomers(ctx, t, w.address(w.udp), newcomer) })
				return func() {
					work.Wait()
					wasAttacked(t, "datagrams", sent, datagramRate/2)
				}
			})
		})
	}
}

// TestPlayers_EndureFloodsThatTheGameDoesNotAnswer attacks another port of the agent,
// whose game is silent.
func TestPlayers_EndureFloodsThatTheGameDoesNotAnswer(t *testing.T) {
	w := sharedWorld(t)
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := w.expose(t, types.CreateUDP, silent.LocalAddr().(*net.UDPAddr).Port, nil).Port
	for name, from := range map[string]func(n int) netip.Addr{
		"of one source": func(int) netip.Addr { return attacker(5) },
		"forged":        forged,
	} {
		t.Run(name, func(t *testing.T) {
			w.endure(t, func(ctx context.Context) func() {
				var work sync.WaitGroup
				var sent int64
				work.Go(func() { sent = sendDatagrams(ctx, t, port, from) })
				return func() {
					work.Wait()
					wasAttacked(t, "datagrams", sent, datagramRate/2)
				}
			})
		})
	}
}
