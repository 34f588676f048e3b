//go:build linux

// Package player is the player's side of the bench: it does what games do
// through a tunnel, or more of it, and verifies everything that comes back. See
// package target for what answers.
package player

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

// patience is how long anything may take that is not measured by the clock
// itself. Whatever takes longer is broken.
const patience = 10 * time.Second

// addresses is how many addresses players come from on loopback.
const addresses = 60_000

var joined atomic.Uint64

// dialer returns a dialer that has the address of another player each time where
// the game is on loopback. It leaves the port to the kernel until it connects,
// so that ports just used by others are not in the way.
func dialer(addr string) *net.Dialer {
	d := &net.Dialer{Timeout: patience}
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return d
	}
	n := joined.Add(1) % addresses
	d.Control = func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); failed == nil {
				failed = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(n / 250), byte(1 + n%250)}})
			}
		})
		if err != nil {
			return err
		}
		return failed
	}
	return d
}

// join connects to the game and waits until it has spoken.
func join(ctx context.Context, addr string) (*net.TCPConn, error) {
	conn, err := dialer(addr).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	tcp := conn.(*net.TCPConn)
	if err := greeted(tcp); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("join: %w", err)
	}
	return tcp, nil
}

func greeted(conn *net.TCPConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return fmt.Errorf("wait for the game to speak: %w", err)
	}
	if b[0] != target.Greeting {
		return fmt.Errorf("the game said %#x, not %#x", b[0], target.Greeting)
	}
	return conn.SetReadDeadline(time.Time{})
}

// ask joins the game and asks for something.
func ask(ctx context.Context, addr string, r target.Request) (*net.TCPConn, error) {
	conn, err := join(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(r.Encode()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask for %c: %w", r.Op, err)
	}
	return conn, nil
}
