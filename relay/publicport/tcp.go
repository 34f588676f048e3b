package publicport

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// tcpPort is the public port of a TCP allocation. While it drains its listener is
// closed, so that a new player is refused at once and may try another address.
type tcpPort struct {
	ports      *Ports
	allocation types.ServerAllocation
	listener   *net.TCPListener // nil while it drains. Guarded by Ports.mu.
	closing    context.Context
	cancel     context.CancelFunc
	turns      chan struct{} // Holds one for each player at a tunnel client who may join: see Limits.Unanswered.
	refusals   portRefusals
	bandwidth  bandwidth
	usage      *meter.Allocation
	answeredAt atomic.Int64 // When a player at a tunnel client was last answered, in nanoseconds of Unix time.
	extra      atomic.Int64 // Answered players: each has added a turn, until there were answeringFactor times as many.

	mu        sync.Mutex
	closed    bool
	accepting int // Accept loops: one whose listener is closed may still bring a player.
	admission tcpAdmission
	players   map[*tcpPlayer]struct{} // Whose connections have not ended.
	changed   chan struct{}           // Closed, and replaced, when the rules are.
}

func openTCP(p *Ports, a types.ServerAllocation, s *slot) (port, error) {
	t := &tcpPort{
		ports: p, allocation: a, refusals: s.refusals, turns: make(chan struct{}, answeringFactor*p.o.Limits.Unanswered),
		admission: newTCPAdmission(p, a, s.rules), bandwidth: newBandwidth(s.rules), usage: s.usage,
		players: map[*tcpPlayer]struct{}{}, changed: make(chan struct{}),
	}
	for range p.o.Limits.Unanswered {
		t.turns <- struct{}{}
	}
	t.closing, t.cancel = context.WithCancel(context.Background())
	if err := t.resume(); err != nil {
		t.cancel()
		return nil, err
	}
	return t, nil
}

// configure sets the rules. A TCP allocation's options are the agent's.
func (p *tcpPort) configure(_ types.ServerAllocation, r *rules) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.admission.rules == r {
		return
	}
	p.admission.setRules(r)
	p.bandwidth.configure(r)
	close(p.changed)
	p.changed = make(chan struct{})
	for player := range p.in() {
		if why := p.admission.permits(player.source); why != NotRefused {
			p.admission.in.Remove(player)
			p.cut(player, why)
		}
	}
	for _, player := range p.admission.evictSurplus(p.in()) {
		p.cut(player, RefusedGaveWay)
	}
}

// in returns the players who are in. It is called with mu held.
func (p *tcpPort) in() iter.Seq[*tcpPlayer] {
	return func(yield func(*tcpPlayer) bool) {
		for player := range p.players {
			if p.admission.in.Has(player) && !yield(player) {
				return
			}
		}
	}
}

func (p *tcpPort) tick(time.Time) {}

func (p *tcpPort) close() {
	p.drain()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cancel()
	for player := range p.players {
		player.end()
	}
}

func (p *tcpPort) accept(l *net.TCPListener) {
	failing := false
	for {
		player, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files or memory, most likely: what ends will bring them back.
			if !failing {
				p.ports.log.Warn("players cannot be accepted", slog.Int64("allocationId", p.allocation.ID), slog.Any("error", err))
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
		p.ports.counters.joined.Add(1)
		p.connected(player)
	}
}

// connected serves a player who has just connected, or resets the connection. It waits
// if the allocation has more connections per second than it may; others wait meanwhile
// in the listener's backlog.
func (p *tcpPort) connected(conn *net.TCPConn) {
	player := &tcpPlayer{conn: conn, source: netaddr.OfTCP(conn.RemoteAddr()).Addr()}
	waits, entered := p.enter(player)
	if !entered {
		tcpstream.Reset(conn)
		return
	}
	p.ports.work.Go(func() {
		defer p.leave(player)
		p.serve(waits, player)
	})
}

// enter admits a player, who may wait for a data connection while the context lives.
func (p *tcpPort) enter(player *tcpPlayer) (waits context.Context, entered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	refusal := p.admission.connected(player.source, time.Now())
	if refusal == NotRefused {
		p.await()
	}
	if p.closed {
		return nil, false
	}
	var evicted *tcpPlayer
	if refusal == NotRefused {
		evicted, refusal = p.admission.enter(player, time.Now())
	}
	if refusal != NotRefused {
		p.refusals.player(refusal)
		return nil, false
	}
	if evicted != nil {
		p.cut(evicted, RefusedGaveWay)
	}
	waits, player.giveUp = context.WithCancel(p.closing)
	p.players[player] = struct{}{}
	player.meter = p.usage.New()
	player.live = p.ports.live.add(&connection{
		allocation: p.allocation.ID, client: p.allocation.ClientID, source: netaddr.OfTCP(player.conn.RemoteAddr()),
		since: time.Now(), meter: player.meter, tcp: player.conn, cut: func() { p.cutOff(player) },
	})
	p.ports.connected.add(player.source)
	p.ports.counters.players.Add(1)
	return waits, true
}

// await waits until one more player may enter, by the connections per second that the
// allocation may have, or until the port closes. It is called with mu held, and releases
// it while it waits.
func (p *tcpPort) await() {
	for !p.closed {
		wait, changed := p.admission.turn(time.Now()), p.changed
		if wait == 0 {
			return
		}
		p.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-p.closing.Done():
		}
		timer.Stop()
		p.mu.Lock()
	}
}

// cut ends a player who is not in any more. It is called with mu held.
func (p *tcpPort) cut(player *tcpPlayer, why Refusal) {
	p.refusals.player(why)
	player.end()
}

// cutOff ends a player because somebody wants it.
func (p *tcpPort) cutOff(player *tcpPlayer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.players[player]; ok {
		p.admission.in.Remove(player)
		player.end()
	}
}

func (p *tcpPort) leave(player *tcpPlayer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	player.giveUp()
	delete(p.players, player)
	player.meter.Leave()
	p.ports.live.remove(player.live)
	p.ports.connected.remove(player.source)
	p.admission.left(player)
	p.ports.counters.players.Add(-1)
}

// serve carries a player. Its stack is that of the player for as long as they stay: it
// must fit into 4 kB with all that it calls.
func (p *tcpPort) serve(waits context.Context, player *tcpPlayer) {
	if refusal := p.carry(waits, p.streamOf(player)); refusal != NotRefused {
		p.refuse(player, refusal)
	}
}

func (p *tcpPort) streamOf(player *tcpPlayer) *tcpstream.Player {
	return &tcpstream.Player{Conn: player.conn, Meter: player.meter, Open: wire.Control{
		Type:        wire.ControlOpen,
		Allocation:  p.allocation.ID,
		Source:      netaddr.OfTCP(player.conn.RemoteAddr()),
		Destination: netaddr.OfTCP(player.conn.LocalAddr()),
	}}
}

// refuse resets a player who cannot be served: closing in order would look like a game
// that hangs up.
func (p *tcpPort) refuse(player *tcpPlayer, why Refusal) {
	if p.isIn(player) { // Otherwise it was counted when they had to leave.
		p.refusals.player(why)
	}
	p.ports.log.Debug("player refused", slog.Int64("allocationId", p.allocation.ID), slog.String("reason", string(why)))
	tcpstream.Reset(player.conn)
}

// isIn reports whether a player has not been evicted.
func (p *tcpPort) isIn(player *tcpPlayer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.admission.in.Has(player)
}

// carry carries a player, one at a tunnel client in turn.
func (p *tcpPort) carry(waits context.Context, player *tcpstream.Player) Refusal {
	defer p.bandwidth.bound(waits, player)()
	if p.ports.o.Clients.AtClient(player.Open.Source.Addr(), player.Open.Destination.Addr()) {
		return p.carryInTurn(waits, player)
	}
	return p.ports.o.Clients.Carry(waits, p.allocation.ClientID, player)
}

func (p *tcpPort) carryInTurn(waits context.Context, player *tcpstream.Player) Refusal {
	if refusal := p.awaitTurn(waits, player.Open.Source); refusal != NotRefused {
		return refusal
	}
	unanswered := true
	player.Answered = func() {
		unanswered = false
		p.answeredAt.Store(time.Now().UnixNano())
		p.turns <- struct{}{}
		if p.extra.Add(1) <= int64((answeringFactor-1)*p.ports.o.Limits.Unanswered) {
			p.turns <- struct{}{} // One more, since the game answers.
		}
	}
	defer func() {
		if unanswered {
			p.turns <- struct{}{}
		}
	}()
	return p.ports.o.Clients.Carry(waits, p.allocation.ClientID, player)
}

// awaitTurn waits until a player at a tunnel client may join. It waits on as long as the
// game answers others: then this is no tunnel that leads to itself, but a busy machine.
func (p *tcpPort) awaitTurn(waits context.Context, source netip.AddrPort) Refusal {
	limit := p.ports.o.Limits.UnansweredWait
	wait := time.NewTimer(limit)
	defer wait.Stop()
	for {
		select {
		case <-p.turns:
			return NotRefused
		case <-waits.Done():
			return RefusedNoDataConnection // As for a player whom it closes on in Carry.
		case <-wait.C:
		}
		rest := limit - time.Since(time.Unix(0, p.answeredAt.Load()))
		if rest <= 0 {
			p.ports.loops.say(p.allocation.ID, source)
			return RefusedLoop
		}
		wait.Reset(rest)
	}
}

// resume opens the listener, if it is not open. Connections that are half open, of peers
// that have sent a SYN and no more, are the system's: its backlog is as long as it allows
// (on Linux net.core.somaxconn), and where that is full Linux goes on with SYN cookies
// (net.ipv4.tcp_syncookies, on by default), which take no memory.
func (p *tcpPort) resume() error {
	if p.listener != nil {
		return nil
	}
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", p.ports.bindAddress(p.allocation.Port))
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
	p.ports.work.Go(func() {
		p.accept(tcp)
		p.mu.Lock()
		p.accepting--
		p.mu.Unlock()
	})
	return nil
}

func (p *tcpPort) drain() {
	if p.listener == nil {
		return
	}
	_ = p.listener.Close()
	p.listener = nil
}

// remaining counts a player who may just have been accepted too: the port is not
// empty before its accept loop has ended.
func (p *tcpPort) remaining() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.players) + p.accepting
}
