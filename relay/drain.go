package relay

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// A port that drains takes no new players, and those it has play on. The port of a
// TCP allocation is closed for that, so that a player is refused at once and may
// try another address; that of a UDP allocation stays open for its flows, and a
// datagram of anybody else is dropped. When it ends is the panel's to say.

// playersInterval is the least time between two reports of how many players there
// are. That there are none is said at once.
const playersInterval = 5 * time.Second

func draining(a types.ServerAllocation) bool { return a.DrainUntil != nil }

// resume opens the listener, if it is not open.
func (p *streamPort) resume() error {
	if p.listener != nil {
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", p.server.bindAddress(p.allocation.Port))
	if err != nil {
		return err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return fmt.Errorf("listen: got a %T", l)
	}
	p.mu.Lock()
	p.listener = tcp
	p.accepting++
	p.mu.Unlock()
	p.server.work.Go(func() {
		p.accept(tcp)
		p.mu.Lock()
		p.accepting--
		p.mu.Unlock()
	})
	return nil
}

func (p *streamPort) drain() {
	if p.listener == nil {
		return
	}
	_ = p.listener.Close()
	p.listener = nil
}

// remaining counts whoever may just have been accepted too: the port is not empty
// before its accepting has ended.
func (p *streamPort) remaining() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.players) + p.accepting
}

func (p *datagramPort) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = false
	return nil
}

func (p *datagramPort) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
}

func (p *datagramPort) remaining() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flows)
}

// reportPlayers tells the panel how many players there are, where that is another
// number than it was told.
func (c *control) reportPlayers(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counters := &c.server.counters
	players := int(counters.players.Load() + counters.udp.Flows.Load())
	if c.conn == nil || players == c.players || players > 0 && now.Sub(c.playersAt) < playersInterval {
		return
	}
	c.players, c.playersAt = players, now
	// An error means that the channel has ended, and the next one is told.
	_ = c.conn.Send(types.StatusReport{
		Type: types.TypeStatus, Revision: c.revision, Allocations: []types.AllocationReport{}, Players: &players,
	})
}
