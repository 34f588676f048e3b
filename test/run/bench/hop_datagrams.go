//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// flowIdle is the silence after which a flow ends, and twice that at most.
	flowIdle = time.Minute
	// hopUDPBuffer is the room for datagrams that wait for the socket that all players
	// share, in bytes. More than the kernel's default, for it would lose those of a few
	// hundred players who come at once.
	hopUDPBuffer = 4 << 20
	maxDatagram  = 2048
	// sources is how many addresses flows leave a hop from on loopback.
	sources = 60_000
)

// datagramHop passes datagrams on, with a socket of its own for each flow.
type datagramHop struct {
	conn *net.UDPConn
	next *net.UDPAddr
	// from holds the port that flows leave from on loopback. It is not that of conn:
	// what the hop sends on to what is next would be taken for its answers.
	from *net.UDPConn
	done sync.WaitGroup

	mu     sync.Mutex
	closed bool
	flows  map[netip.AddrPort]*net.UDPConn
	opened int // Ever.
}

func newDatagramHop(ctx context.Context, addr, next string) (*datagramHop, error) {
	to, err := net.ResolveUDPAddr("udp", next)
	if err != nil {
		return nil, fmt.Errorf("next hop: %w", err)
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	udp := conn.(*net.UDPConn)
	//nolint:errcheck // the kernel's default is less room and no reason to stop
	udp.SetReadBuffer(hopUDPBuffer)
	from, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &datagramHop{conn: udp, from: from, next: to, flows: make(map[netip.AddrPort]*net.UDPConn)}, nil
}

func (h *datagramHop) close() error {
	h.mu.Lock()
	h.closed = true
	err := errors.Join(h.conn.Close(), h.from.Close())
	for _, game := range h.flows {
		game.Close()
	}
	h.mu.Unlock()
	h.done.Wait()
	return err
}

// serve passes the players' datagrams on until the hop is closed.
func (h *datagramHop) serve() {
	buf := make([]byte, maxDatagram)
	for {
		n, player, err := h.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // An ICMP error of an earlier datagram.
		}
		if game := h.flow(player); game != nil {
			//nolint:errcheck // a datagram may get lost anywhere
			game.Write(buf[:n])
		}
	}
}

// flow returns the socket of a player's flow, a new one where there is none, or
// nil where none can be had. On loopback it leaves from one port, of another
// address each time: the kernel has 28,000 ports to give, and a flow would hold one
// for minutes after its player has left.
func (h *datagramHop) flow(player netip.AddrPort) *net.UDPConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if game := h.flows[player]; game != nil || h.closed {
		return game
	}
	var source *net.UDPAddr
	if h.next.IP.IsLoopback() {
		h.opened++
		n := h.opened % sources
		source = &net.UDPAddr{IP: net.IPv4(127, 2, byte(n/250), byte(1+n%250)), Port: h.from.LocalAddr().(*net.UDPAddr).Port}
	}
	game, err := net.DialUDP("udp", source, h.next)
	if err != nil {
		return nil
	}
	h.flows[player] = game
	h.done.Go(func() { h.answer(game, player) })
	return game
}

// answer passes the game's datagrams back to a player until the flow is idle.
func (h *datagramHop) answer(game *net.UDPConn, player netip.AddrPort) {
	defer func() {
		h.mu.Lock()
		delete(h.flows, player)
		h.mu.Unlock()
		game.Close()
	}()
	buf := make([]byte, maxDatagram)
	// A deadline for every datagram would cost as much as passing it on.
	for answered := true; answered; {
		if err := game.SetReadDeadline(time.Now().Add(flowIdle)); err != nil {
			return
		}
		for answered = false; ; answered = true {
			n, err := game.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return
			}
			//nolint:errcheck // a datagram may get lost anywhere
			h.conn.WriteToUDPAddrPort(buf[:n], player)
		}
	}
}
