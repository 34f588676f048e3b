//go:build linux

package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connectionRate is how many connections a second an attacker makes. It is bounded,
// because attackers and victim share one machine: what is attacked is what a tunnel
// server counts, not the machine's CPU.
const connectionRate = 1000

// flood makes connections to an address until ctx ends, at connectionRate, each from
// from(n), and has keep hold each; keep returns when the connection has ended or ctx has.
// It returns how many were made.
func flood(ctx context.Context, address string, from func(n int) netip.Addr, keep func(context.Context, net.Conn)) (stop func() (made int64)) {
	var work sync.WaitGroup
	var made atomic.Int64
	work.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			for range connectionRate / 100 {
				source := from(n)
				n++
				work.Go(func() {
					conn, err := dialerFrom(source).DialContext(ctx, "tcp", address)
					if err != nil {
						return // Refused, as it should be, or over.
					}
					made.Add(1)
					defer conn.Close()
					// Without TIME_WAIT: the next attack needs the ports.
					_ = conn.(*net.TCPConn).SetLinger(0)
					keep(ctx, conn)
				})
			}
		}
	})
	return func() int64 {
		work.Wait()
		return made.Load()
	}
}

// hold keeps a connection until it or ctx ends, and sends nothing.
func hold(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, _ = io.Copy(io.Discard, conn)
}

// request asks the game for something: see package traffic.
func request(op byte) []byte { return binary.LittleEndian.AppendUint64([]byte{op}, 0) }

// neverRead begins a download and reads nothing of it.
func neverRead(ctx context.Context, conn net.Conn) {
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := conn.Write(request('D')); err == nil {
		<-ctx.Done()
	}
}

// writeSlowly sends a byte every half a second.
func writeSlowly(ctx context.Context, conn net.Conn) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for _, b := range request('U') {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
	hold(ctx, conn)
}

// publicAddress is the public port of the attacked allocation, over IPv4 or IPv6.
func (w *world) publicAddress(from netip.Addr) string {
	host := server4
	if from.Is6() {
		host = "::1"
	}
	return net.JoinHostPort(host, fmt.Sprint(w.tcp.Port))
}

func TestPlayers_EndureFloodsOfConnections(t *testing.T) {
	for name, a := range map[string]struct {
		from func(n int) netip.Addr
		keep func(context.Context, net.Conn)
	}{
		"silent, of one source": {func(int) netip.Addr { return attacker(0) }, hold},
		"silent, of a 48":       {of48, hold},
		"that never read":       {func(int) netip.Addr { return attacker(1) }, neverRead},
		"that write slowly":     {func(int) netip.Addr { return attacker(2) }, writeSlowly},
		"that leave at once":    {func(int) netip.Addr { return attacker(3) }, func(context.Context, net.Conn) {}},
	} {
		t.Run(name, func(t *testing.T) {
			w := sharedWorld(t)
			w.endure(t, func(ctx context.Context) func() {
				stop := flood(ctx, w.publicAddress(a.from(0)), a.from, a.keep)
				return func() { wasAttacked(t, "connections", stop(), connectionRate/10) }
			})
		})
	}
}

// wasAttacked fails the test if there was hardly an attack.
func wasAttacked(t *testing.T, of string, n, least int64) {
	t.Helper()
	t.Logf("attacked by %d %s", n, of)
	if n < least {
		t.Errorf("there were %d %s, want at least %d", n, of, least)
	}
}

// TestPlayers_EndureHalfOpenConnections begins handshakes that are never completed.
func TestPlayers_EndureHalfOpenConnections(t *testing.T) {
	w := sharedWorld(t)
	w.endure(t, func(ctx context.Context) func() {
		var work sync.WaitGroup
		var begun int64
		work.Go(func() { begun = halfOpen(ctx, t, w.tcp.Port) })
		return func() {
			work.Wait()
			wasAttacked(t, "handshakes", begun, connectionRate/10)
		}
	})
}

// halfOpen begins handshakes with a port of this machine until ctx ends.
func halfOpen(ctx context.Context, t *testing.T, port int) (begun int64) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	var open []int
	closeAll := func(fds []int) {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	defer func() { closeAll(open) }()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return begun
		case <-ticker.C:
		}
		for range connectionRate / 100 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Errorf("socket: %v", err)
				return begun
			}
			open = append(open, fd)
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: mute(n).As4()})
			if err == nil {
				err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(server4).As4()})
			}
			n++
			if errors.Is(err, syscall.EINPROGRESS) {
				begun++
			}
			// Ours are closed soon, and the tunnel server's half stays.
			if len(open) > 2*connectionRate {
				closeAll(open[:connectionRate])
				open = append([]int(nil), open[connectionRate:]...)
			}
		}
	}
}
