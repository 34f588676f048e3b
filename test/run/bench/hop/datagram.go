package hop

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
	// socketBuffer is the room for datagrams that wait for the socket that all
	// players share, in bytes. More than the kernel's default, for it would lose
	// those of a few hundred players who come at once.
	socketBuffer = 4 << 20
	// maxDatagram takes every datagram that the bench sends.
	maxDatagram = 2048
)

// relay passes datagrams on, with a socket of its own for each flow.
type relay struct {
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

func newRelay(ctx context.Context, addr, next string) (*relay, error) {
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
	udp.SetReadBuffer(socketBuffer)
	from, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &relay{conn: udp, from: from, next: to, flows: make(map[netip.AddrPort]*net.UDPConn)}, nil
}

func (r *relay) addr() string { return r.conn.LocalAddr().String() }

func (r *relay) close() error {
	r.mu.Lock()
	r.closed = true
	err := errors.Join(r.conn.Close(), r.from.Close())
	for _, game := range r.flows {
		game.Close()
	}
	r.mu.Unlock()
	r.done.Wait()
	return err
}

// serve passes the players' datagrams on until the relay is closed.
func (r *relay) serve() {
	buf := make([]byte, maxDatagram)
	for {
		n, player, err := r.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier datagram
		}
		if game := r.flow(player); game != nil {
			//nolint:errcheck // a datagram may get lost anywhere
			game.Write(buf[:n])
		}
	}
}

// flow returns the socket of a player's flow, a new one where there is none, or
// nil where none can be had.
func (r *relay) flow(player netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if game := r.flows[player]; game != nil || r.closed {
		return game
	}
	game, err := net.DialUDP("udp", r.source(), r.next)
	if err != nil {
		return nil
	}
	r.flows[player] = game
	r.done.Go(func() { r.answer(game, player) })
	return game
}

// sources is how many addresses flows leave a hop from on loopback.
const sources = 60_000

// source is where the next flow leaves from, on loopback: one port, of another
// address each time. The kernel has 28,000 ports to give,
// a flow would hold one for minutes after its player has left, and what another
// tunnel's flows hold is none of theirs.
func (r *relay) source() *net.UDPAddr {
	if !r.next.IP.IsLoopback() {
		return nil
	}
	r.opened++
	n := r.opened % sources
	return &net.UDPAddr{IP: net.IPv4(127, 2, byte(n/250), byte(1+n%250)), Port: r.from.LocalAddr().(*net.UDPAddr).Port}
}

// answer passes the game's datagrams back to a player until the flow is idle.
func (r *relay) answer(game *net.UDPConn, player netip.AddrPort) {
	defer func() {
		r.mu.Lock()
		delete(r.flows, player)
		r.mu.Unlock()
		game.Close()
	}()
	buf := make([]byte, maxDatagram)
	// A deadline for every datagram would cost as much as passing it on.
	for answered := true; answered; {
		if err := game.SetReadDeadline(time.Now().Add(flowIdle)); err != nil {
			return
		}
		answered = false
		for {
			n, err := game.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return
			}
			answered = true
			//nolint:errcheck // a datagram may get lost anywhere
			r.conn.WriteToUDPAddrPort(buf[:n], player)
		}
	}
}
