package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// streamPort is the public port of a TCP allocation.
type streamPort struct {
	server     *Server
	allocation types.ServerAllocation
	listener   *net.TCPListener // nil while it drains. Of whoever holds ports.mu.
	closing    context.Context
	cancel     context.CancelFunc

	mu        sync.Mutex
	closed    bool
	accepting int // Listeners being accepted on: one that is closed may still bring a player.
	players   map[*net.TCPConn]struct{}
}

func (s *Server) openStreamPort(a types.ServerAllocation) (publicPort, error) {
	p := &streamPort{server: s, allocation: a, players: map[*net.TCPConn]struct{}{}}
	p.closing, p.cancel = context.WithCancel(context.Background())
	if err := p.resume(); err != nil {
		p.cancel()
		return nil, err
	}
	return p, nil
}

// configure has nothing to do: a TCP allocation's options are the agent's.
func (p *streamPort) configure(types.ServerAllocation) {}

func (p *streamPort) tend(time.Time) {}

func (p *streamPort) close() {
	p.drain()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cancel()
	for player := range p.players {
		tcpstream.Reset(player) // Its stream ends by it.
	}
}

func (p *streamPort) accept(l *net.TCPListener) {
	failing := false
	for {
		player, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files or memory, most likely: what ends will bring them back.
			if !failing {
				p.server.log.Warn("players cannot be accepted", slog.Int64("allocationId", p.allocation.ID), slog.Any("error", err))
			}
			failing = true
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-p.closing.Done():
				return
			}
		}
		failing = false
		p.server.counters.joined.Add(1)
		if !p.enter(player) {
			tcpstream.Reset(player)
			continue
		}
		p.server.work.Go(func() {
			defer p.leave(player)
			p.serve(player)
		})
	}
}

func (p *streamPort) enter(player *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if len(p.players) >= p.server.limits.Players {
		p.server.counters.refuse(refusedLimit)
		return false
	}
	p.players[player] = struct{}{}
	p.server.counters.players.Add(1)
	return true
}

func (p *streamPort) leave(player *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.players, player)
	p.server.counters.players.Add(-1)
}

// serve carries a player. Whom it cannot serve it resets: closing in order
// would look like a game that hangs up.
func (p *streamPort) serve(player *net.TCPConn) {
	link := p.server.link(p.allocation.ClientID)
	if link == nil {
		p.server.counters.refuse(refusedNoLink)
		tcpstream.Reset(player)
		return
	}
	ctx, cancel := context.WithTimeout(p.closing, p.server.limits.JoinWait)
	defer cancel()
	open := wire.Control{
		Type:        wire.ControlOpen,
		Allocation:  p.allocation.ID,
		Source:      tcpAddrPort(player.RemoteAddr()),
		Destination: tcpAddrPort(player.LocalAddr()),
	}
	for {
		conn, err := link.pool.acquire(ctx)
		if err != nil {
			p.server.counters.refuse(refusalOf(err))
			p.server.log.Debug("player refused", slog.Int64("allocationId", p.allocation.ID), slog.Any("reason", err))
			tcpstream.Reset(player)
			return
		}
		err = conn.Carry(player, open)
		if errors.Is(err, tcpstream.ErrUnused) {
			continue // It had died while idle.
		}
		if err == nil {
			link.pool.finished(conn)
		}
		return
	}
}

// refusalOf is what a failed pool.acquire means to its player.
func refusalOf(err error) refusal {
	switch {
	case errors.Is(err, errPoolClosed):
		return refusedNoLink
	case errors.Is(err, errTooMany):
		return refusedWaiting
	default:
		return refusedNoDataConnection
	}
}

// tcpAddrPort returns a TCP address, an IPv4-mapped one as IPv4.
func tcpAddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unmap(t.AddrPort())
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
