package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// defaultIdle is the contract's default of udpIdleSeconds.
const defaultIdle = 60

const (
	// evictionScanLimit is how many flows are examined for one to evict.
	evictionScanLimit = 16
	// evictionsPerTick bounds the flows of a port that are evicted in a tick: each
	// flow that takes their place is work for the agent and a packet on a home's
	// line, which a flood must not fill.
	evictionsPerTick = 1024
)

// datagramPort is the public port of a UDP allocation.
type datagramPort struct {
	server  *Server
	conn    *net.UDPConn
	packets *udpsock.Conn
	done    chan struct{} // Closed when the port is.

	mu         sync.Mutex
	closed     bool
	draining   bool
	allocation types.ServerAllocation
	flows      map[flowKey]*udptunnel.ServerFlow
	sources    map[netip.Addr]int // How many flows each has, see sourceOf.
	evicted    int                // Flows in this tick.
}

// flowKey tells flows apart: a player who reaches two addresses of this machine
// must be answered from each.
type flowKey struct {
	source netip.AddrPort
	local  netip.Addr
}

func keyOf(f *udptunnel.ServerFlow) flowKey { return flowKey{source: f.Source, local: f.Local} }

func (s *Server) openDatagramPort(a types.ServerAllocation) (publicPort, error) {
	var config net.ListenConfig
	l, err := config.ListenPacket(context.Background(), "udp", s.bindAddress(a.Port))
	if err != nil {
		return nil, err
	}
	udp, ok := l.(*net.UDPConn)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("listen: got a %T", l)
	}
	_ = udp.SetReadBuffer(udpsock.SocketBuffer)
	if err := askForDestination(udp); err != nil {
		_ = l.Close()
		return nil, err
	}
	packets, err := udpsock.New(udp)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	p := &datagramPort{
		server: s, conn: udp, packets: packets, allocation: a, done: make(chan struct{}),
		flows: map[flowKey]*udptunnel.ServerFlow{}, sources: map[netip.Addr]int{},
	}
	s.work.Go(p.read)
	return p, nil
}

func (p *datagramPort) configure(a types.ServerAllocation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allocation = a
}

func (p *datagramPort) close() {
	p.mu.Lock()
	p.closed = true
	close(p.done)
	_ = p.conn.Close()
	flows := make([]*udptunnel.ServerFlow, 0, len(p.flows))
	for _, f := range p.flows {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	for _, f := range flows {
		p.FlowEnded(f)
	}
}

// tend ends the flows on which both directions have been silent.
func (p *datagramPort) tend(now time.Time) {
	ticks := udptunnel.Ticks(now)
	p.mu.Lock()
	p.evicted = 0
	var idle []*udptunnel.ServerFlow
	for _, f := range p.flows {
		if f.IdleAt(ticks) {
			idle = append(idle, f)
		}
	}
	p.mu.Unlock()
	for _, f := range idle {
		p.FlowEnded(f)
	}
}

func (p *datagramPort) read() {
	var in incoming
	for {
		packets, err := p.packets.Read()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.server.log.Debug("read a public UDP port", slog.Int64("allocationId", p.allocationID()), slog.Any("error", err))
			select {
			case <-time.After(10 * time.Millisecond): // Not to spin, should it last.
				continue
			case <-p.done:
				return
			}
		}
		p.forward(packets, &in)
		packets.Release()
	}
}

func (p *datagramPort) allocationID() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allocation.ID
}

// incoming are players' datagrams that were read together; memory that is reused
// for the next ones.
type incoming struct {
	datagrams udptunnel.PlayerDatagrams
	evicted   []*udptunnel.ServerFlow
}

// forward passes players' datagrams on, or drops and counts them.
func (p *datagramPort) forward(batch *udpsock.Batch, in *incoming) {
	now := udptunnel.Ticks(time.Now())
	p.mu.Lock()
	for i := range batch.Len() {
		payload := batch.Data(i)
		if len(payload) > wire.MaxDatagram {
			p.server.counters.drop(dropTooLong)
			continue
		}
		key := flowKey{source: batch.Source(i), local: destination(batch.Control(i))}
		f := p.flows[key]
		if f == nil {
			p.open(key, payload, now, in)
			continue
		}
		f.Touch(now)
		in.datagrams.Add(f, payload)
	}
	p.mu.Unlock()
	for _, f := range in.evicted {
		f.Close()
	}
	clear(in.evicted) // Not to keep them alive.
	in.evicted = in.evicted[:0]
	in.datagrams.Send()
}

// open opens a flow with its first datagram, or drops and counts that. It is called
// with mu held.
func (p *datagramPort) open(key flowKey, payload []byte, now int64, in *incoming) {
	if p.draining {
		p.server.counters.drop(dropDraining)
		return
	}
	var session *udptunnel.ServerSession
	if !p.closed {
		session = p.server.udpSession(p.allocation.ClientID)
	}
	if session == nil {
		p.server.counters.drop(dropNoLink)
		return
	}
	limits := p.server.limits
	source := sourceOf(key.source.Addr())
	if p.sources[source] >= limits.FlowsPerSource || len(p.flows) >= limits.Flows && !p.evict(in) {
		p.server.counters.drop(dropFlowLimit)
		return
	}
	idle := defaultIdle
	if o := p.allocation.Options.UDPIdleSeconds; o != nil && *o > 0 {
		idle = *o
	}
	f := &udptunnel.ServerFlow{
		Port:   p,
		Source: key.source,
		Local:  key.local,
		To:     p.packets.Endpoint(key.source, answerFrom(key.local)),
		Idle:   time.Duration(idle) * time.Second,
	}
	f.Touch(now)
	if !in.datagrams.Open(session, f, p.allocation.ID, p.reached(key), payload) {
		return
	}
	p.flows[key] = f
	p.sources[source]++
}

// evict removes a flow that the game has never answered, and reports whether it
// found one: a flood with forged source addresses consists of those, as long as the
// game does not take it for players. It is called with mu held.
func (p *datagramPort) evict(in *incoming) bool {
	if p.evicted >= evictionsPerTick {
		return false
	}
	left := evictionScanLimit
	for _, f := range p.flows { // In no order.
		if !f.Answered() {
			p.evicted++
			p.forget(f)
			in.evicted = append(in.evicted, f)
			return true
		}
		if left--; left == 0 {
			break
		}
	}
	return false
}

// reached is the public address that a player reached, as far as the system
// tells.
func (p *datagramPort) reached(key flowKey) netip.AddrPort {
	var bound netip.AddrPort
	if a, ok := p.conn.LocalAddr().(*net.UDPAddr); ok {
		bound = unmap(a.AddrPort())
	}
	switch {
	case key.local.IsValid():
		return netip.AddrPortFrom(key.local, bound.Port())
	case bound.Addr().IsUnspecified() && key.source.Addr().Is4():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), bound.Port())
	default:
		return bound
	}
}

// FlowEnded implements [udptunnel.PublicPort].
func (p *datagramPort) FlowEnded(f *udptunnel.ServerFlow) {
	p.mu.Lock()
	if p.flows[keyOf(f)] != f {
		p.mu.Unlock()
		return
	}
	p.forget(f)
	p.mu.Unlock()
	f.Close()
}

// forget is called with mu held.
func (p *datagramPort) forget(f *udptunnel.ServerFlow) {
	delete(p.flows, keyOf(f))
	source := sourceOf(f.Source.Addr())
	if p.sources[source]--; p.sources[source] == 0 {
		delete(p.sources, source)
	}
}

// Deliver implements [udptunnel.PublicPort].
func (p *datagramPort) Deliver(datagrams []udpsock.Outgoing) {
	if refused := p.packets.Write(datagrams); refused > 0 {
		p.server.counters.dropped[dropUnsendable].Add(uint64(refused))
	}
}
