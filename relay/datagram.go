package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// defaultIdle is the contract's default of udpIdleSeconds.
const defaultIdle = 60

const (
	// roomLooks is how many flows are looked at for one that may give way.
	roomLooks = 16
	// roomPerTick is how many flows of a port give way in a tick: each that takes
	// their place is work for the agent and a packet on a home's line, which a flood
	// shall not fill.
	roomPerTick = 1024
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
	flows      map[flowKey]*flow
	sources    map[netip.Addr]int // How many flows each has, see sourceOf.
	gaveWay    int                // Flows in this tick.
}

// flowKey tells flows apart: a player who reaches two addresses of this machine
// must be answered from each.
type flowKey struct {
	source netip.AddrPort
	local  netip.Addr
}

// flow is one player's address.
type flow struct {
	port    *datagramPort
	carrier *carrier
	number  uint64
	open    wire.Record // What tells the tunnel client of it,
	known   atomic.Bool // which has arrived.
	key     flowKey
	to      udpsock.Endpoint // The player, answered from the address reached.
	idle    time.Duration
	used    atomic.Int64 // When a datagram last passed, in udptunnel.Ticks,
	back    atomic.Bool  // and whether one ever passed from the game.
}

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
		flows: map[flowKey]*flow{}, sources: map[netip.Addr]int{},
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
	flows := make([]*flow, 0, len(p.flows))
	for _, f := range p.flows {
		flows = append(flows, f)
	}
	p.mu.Unlock()
	for _, f := range flows {
		p.remove(f)
	}
}

// tend ends the flows on which both directions have been silent.
func (p *datagramPort) tend(now time.Time) {
	ticks := udptunnel.Ticks(now)
	p.mu.Lock()
	p.gaveWay = 0
	var silent []*flow
	for _, f := range p.flows {
		if ticks-f.used.Load() > int64(f.idle) {
			silent = append(silent, f)
		}
	}
	p.mu.Unlock()
	for _, f := range silent {
		p.remove(f)
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

// incoming are players' datagrams that were read together, and the flows that
// they belong to; memory that is used again for the next ones.
type incoming struct {
	flows   []*flow
	records []wire.Record
	ended   []*flow // Those that gave way to others.
}

// forward passes players' datagrams on, or drops and counts them. Those that
// their data connection has no room for are counted there.
func (p *datagramPort) forward(packets *udpsock.Batch, in *incoming) {
	now := udptunnel.Ticks(time.Now())
	in.flows, in.records, in.ended = in.flows[:0], in.records[:0], in.ended[:0]
	var opened *carrier
	p.mu.Lock()
	for i := range packets.Len() {
		payload := packets.Data(i)
		if len(payload) > wire.MaxDatagram {
			p.server.counters.drop(dropTooLong)
			continue
		}
		key := flowKey{source: packets.Source(i), local: destination(packets.Control(i))}
		f := p.flows[key]
		if f == nil {
			if f = p.open(key, payload, now, in); f != nil {
				opened = f.carrier
			}
			continue
		}
		f.used.Store(now)
		datagram := wire.Record{Kind: wire.RecordDatagram, Flow: f.number, Payload: payload}
		if !f.known.Load() { // What told of it may have been lost.
			f.carrier.ways.Queue(f.open, datagram)
			opened = f.carrier
			continue
		}
		in.flows = append(in.flows, f)
		in.records = append(in.records, datagram)
	}
	p.mu.Unlock()
	for _, f := range in.ended {
		f.carrier.close(f)
	}
	// All have one carrier, unless the tunnel client has just linked again.
	for i := 0; i < len(in.flows); {
		first, c := i, in.flows[i].carrier
		for i++; i < len(in.flows) && in.flows[i].carrier == c; i++ {
		}
		c.ways.QueueAll(in.records[first:i])
		c.ways.Flush()
		if c == opened {
			opened = nil
		}
	}
	if opened != nil {
		opened.ways.Flush()
	}
	clear(in.flows) // Not to keep alive what ends meanwhile,
	clear(in.ended)
	clear(in.records) // nor memory that was borrowed.
}

// open opens a flow and queues its first datagram, for the caller to flush. It
// returns nil where it may not. It is called with mu held.
func (p *datagramPort) open(key flowKey, payload []byte, now int64, in *incoming) *flow {
	if p.draining {
		p.server.counters.drop(dropDraining)
		return nil
	}
	var c *carrier
	if !p.closed {
		c = p.server.carrier(p.allocation.ClientID)
	}
	if c == nil {
		p.server.counters.drop(dropNoLink)
		return nil
	}
	limits := p.server.limits
	source := sourceOf(key.source.Addr())
	if p.sources[source] >= limits.FlowsPerSource || len(p.flows) >= limits.Flows && !p.makeRoom(in) {
		p.server.counters.drop(dropFlowLimit)
		return nil
	}
	idle := defaultIdle
	if o := p.allocation.Options.UDPIdleSeconds; o != nil && *o > 0 {
		idle = *o
	}
	f := &flow{port: p, carrier: c, key: key, to: p.packets.Endpoint(key.source, answerFrom(key.local)), idle: time.Duration(idle) * time.Second}
	f.used.Store(now)
	open := wire.Record{
		Kind:        wire.RecordOpen,
		Allocation:  p.allocation.ID,
		IdleSeconds: idle,
		Source:      key.source,
		Destination: p.reached(key),
	}
	if !c.open(f, open, payload) {
		return nil
	}
	p.flows[key] = f
	p.sources[source]++
	p.server.counters.flows.Add(1)
	p.server.counters.flowsOpened.Add(1)
	return f
}

// makeRoom ends a flow that the game has never answered, and reports whether it has
// found one: those are all there is to a flood with forged senders, as long as the
// game does not take it for players. It is called with mu held.
func (p *datagramPort) makeRoom(in *incoming) bool {
	if p.gaveWay >= roomPerTick {
		return false
	}
	looks := roomLooks
	for _, f := range p.flows { // In no order.
		if !f.back.Load() {
			p.gaveWay++
			p.forget(f)
			in.ended = append(in.ended, f)
			return true
		}
		if looks--; looks == 0 {
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

// remove ends a flow, if it has not ended yet.
func (p *datagramPort) remove(f *flow) {
	p.mu.Lock()
	if p.flows[f.key] != f {
		p.mu.Unlock()
		return
	}
	p.forget(f)
	p.mu.Unlock()
	f.carrier.close(f)
}

// forget is called with mu held.
func (p *datagramPort) forget(f *flow) {
	delete(p.flows, f.key)
	source := sourceOf(f.key.source.Addr())
	if p.sources[source]--; p.sources[source] == 0 {
		delete(p.sources, source)
	}
	p.server.counters.flows.Add(-1)
}

// deliver sends datagrams to players of the port.
func (p *datagramPort) deliver(out []udpsock.Outgoing) {
	if refused := p.packets.Write(out); refused > 0 {
		p.server.counters.dropped[dropUnsendable].Add(uint64(refused))
	}
}
