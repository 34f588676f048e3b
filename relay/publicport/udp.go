package publicport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// udpPort is the public port of a UDP allocation. While it drains its socket stays
// open for the flows it has, and datagrams of others are dropped. It implements
// [udptunnel.PublicPort].
type udpPort struct {
	ports *Ports
	conn  *udpsock.Conn
	done  chan struct{} // Closed when the port is.

	refusals  portRefusals
	bandwidth bandwidth
	usage     *meter.Allocation

	mu         sync.Mutex
	closed     bool
	allocation types.ServerAllocation
	admission  flowAdmission
	flows      map[flowKey]*udptunnel.ServerFlow
	atClients  atClients
	live       map[*udptunnel.ServerFlow]*connection // Of those that are proven.

	unproven *unprovenBytes
}

// flowKey tells flows apart: a player who reaches two addresses of this machine
// must be answered from each.
type flowKey struct {
	source netip.AddrPort
	local  netip.Addr
}

func keyOf(f *udptunnel.ServerFlow) flowKey { return flowKey{source: f.Source, local: f.Local} }

func openUDP(p *Ports, a types.ServerAllocation, s *slot) (port, error) {
	conn, err := udpsock.Listen(context.Background(), "udp", p.bindAddress(a.Port), udpsock.Options{
		Destinations: true,
		ReadBuffer:   udpsock.SocketBuffer,
	})
	if err != nil {
		return nil, err
	}
	u := &udpPort{
		ports: p, conn: conn, done: make(chan struct{}), refusals: s.refusals, bandwidth: newBandwidth(s.rules), usage: s.usage,
		allocation: a, admission: newFlowAdmission(p.o.Limits, a, &p.flows, s.rules, p.o.Now),
		flows: map[flowKey]*udptunnel.ServerFlow{}, live: map[*udptunnel.ServerFlow]*connection{}, atClients: newAtClients(p.o.Limits.Unanswered),
		unproven: newUnprovenBytes(p.o.Limits),
	}
	p.work.Go(u.read)
	return u, nil
}

func (p *udpPort) configure(a types.ServerAllocation, r *rules) {
	p.mu.Lock()
	changed := p.admission.rules != r
	p.allocation = a
	p.admission.setRules(r)
	p.bandwidth.configure(r)
	var denied []*udptunnel.ServerFlow
	for _, f := range p.flows {
		if changed && p.admission.permits(f.Source.Addr()) != NotRefused {
			denied = append(denied, f)
		}
	}
	p.mu.Unlock()
	for _, f := range denied {
		p.FlowEnded(f)
	}
}

func (p *udpPort) close() {
	p.mu.Lock()
	p.closed = true
	p.atClients.keep(nil)
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

// tick ends the flows on which both directions have been silent.
func (p *udpPort) tick(now time.Time) {
	for _, f := range p.idle(udptunnel.Ticks(now)) {
		p.FlowEnded(f)
	}
	p.expireWaiting(now)
	p.openWaiting()
}

// idle returns the flows that have been silent for too long, at a time in Ticks. It
// releases the lock after every 512: players' datagrams must not wait for all of a port.
func (p *udpPort) idle(now int64) (flows []*udptunnel.ServerFlow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fullness, looked := p.admission.fullness(), 0
	for _, f := range p.flows {
		if silentTooLong(f, now, fullness) {
			flows = append(flows, f)
		}
		if looked++; looked%512 == 0 {
			p.mu.Unlock()
			runtime.Gosched() // Who waits for the lock comes first.
			p.mu.Lock()
		}
	}
	return flows
}

func (p *udpPort) read() {
	var in incoming
	for {
		batch, err := p.conn.Read()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.ports.log.Debug("read a public UDP port", slog.Int64("allocationId", p.allocationID()), slog.Any("error", err))
			select {
			case <-time.After(10 * time.Millisecond): // Not to spin, should it last.
				continue
			case <-p.done:
				return
			}
		}
		p.forward(batch, &in)
		batch.Release()
	}
}

func (p *udpPort) allocationID() int64 {
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
func (p *udpPort) forward(batch *udpsock.Batch, in *incoming) {
	now := time.Now()
	ticks := udptunnel.Ticks(now)
	p.mu.Lock()
	for i := range batch.Len() {
		payload := batch.Data(i)
		if len(payload) > wire.MaxDatagram {
			p.refusals.datagrams(RefusedTooLong, 1)
			continue
		}
		key := flowKey{source: batch.Source(i), local: batch.Local(i)}
		if drop := p.admission.datagram(key.source.Addr(), now); drop != NotRefused {
			p.refusals.datagrams(drop, 1)
			continue
		}
		f := p.flows[key]
		if f == nil {
			if !p.open(key, batch.Endpoint(i), payload, now, in, false) {
				p.wait(key, batch.Endpoint(i), payload)
			}
			continue
		}
		if !f.Proven() && f.Answered() && !p.prove(f, in) {
			continue
		}
		f.Touch(ticks)
		in.datagrams.Add(f, payload)
	}
	p.mu.Unlock()
	in.send()
}

// prove makes a flow that of a player, whose datagram has come after an answer, or
// counts that as dropped. It is called with mu held.
func (p *udpPort) prove(f *udptunnel.ServerFlow, in *incoming) bool {
	evicted, drop := p.admission.prove(f)
	if drop != NotRefused {
		p.refusals.datagrams(drop, 1)
		return false
	}
	f.Meter.Join()
	p.live[f] = p.ports.live.add(&connection{
		allocation: p.allocation.ID, client: p.allocation.ClientID, source: f.Source,
		since: time.Now(), meter: f.Meter, cut: func() { p.FlowEnded(f) },
	})
	p.evict(evicted, in)
	return true
}

// send closes the flows that were evicted, and sends the datagrams.
func (in *incoming) send() {
	for _, f := range in.evicted {
		f.Close()
	}
	clear(in.evicted) // Not to keep them alive.
	in.evicted = in.evicted[:0]
	in.datagrams.Send()
}

// open opens a flow with its first datagram, or drops and counts that, unless it
// reports that the datagram has to wait. One that is not queued waits behind those
// that are. It is called with mu held.
func (p *udpPort) open(key flowKey, to udpsock.Endpoint, payload []byte, now time.Time, in *incoming, queued bool) (done bool) {
	if drop := p.admission.newcomer(key.source.Addr()); drop != NotRefused {
		p.refusals.datagrams(drop, 1)
		return true
	}
	var session *udptunnel.ServerSession
	if !p.closed {
		session = p.ports.o.Clients.UDPSession(p.allocation.ClientID)
	}
	if session == nil {
		p.refusals.datagrams(RefusedNoLink, 1)
		return true
	}
	atClient := p.ports.o.Clients.AtClient(key.source.Addr(), key.local)
	if atClient && (!queued && len(p.atClients.waiting) > 0 || !p.mayAwaitAnswer()) {
		return false
	}
	p.admission.setCapacity(session.Capacity())
	evicted, drop := p.admission.flow(key.source.Addr(), now)
	if drop != NotRefused {
		p.refusals.datagrams(drop, 1)
		return true
	}
	idle := types.DefaultAllocationOptionsUDPIdleSeconds
	if o := p.allocation.Options.UDPIdleSeconds; o != nil && *o > 0 {
		idle = *o
	}
	f := &udptunnel.ServerFlow{
		Port:     p,
		Source:   key.source,
		Local:    key.local,
		To:       to,
		Idle:     time.Duration(idle) * time.Second,
		Upload:   datagrams{p.bandwidth.upload.Join(), p.refusals},
		Download: datagrams{p.bandwidth.download.Join(), p.refusals},
		Meter:    p.usage.New(),
	}
	f.Touch(udptunnel.Ticks(now))
	if !f.Upload.Admit(len(payload)) || !in.datagrams.Open(session, f, p.allocation.ID, p.reached(key), payload) {
		f.Meter.Leave()
		return true
	}
	p.evict(evicted, in)
	p.flows[key] = f
	p.admission.opened(f)
	if atClient {
		p.atClients.unanswered[f] = true
	}
	return true
}

// evict forgets a flow that the admission has evicted, nil: none, and leaves it to in to
// close. It is called with mu held.
func (p *udpPort) evict(f *udptunnel.ServerFlow, in *incoming) {
	if f != nil {
		p.forget(f)
		in.evicted = append(in.evicted, f)
	}
}

// reached is the public address that a player reached, as far as the system
// tells.
func (p *udpPort) reached(key flowKey) netip.AddrPort {
	bound := netaddr.Unmap(p.conn.LocalAddr())
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
func (p *udpPort) FlowEnded(f *udptunnel.ServerFlow) {
	p.mu.Lock()
	if p.flows[keyOf(f)] != f {
		p.mu.Unlock()
		return
	}
	p.forget(f)
	p.mu.Unlock()
	f.Close()
	if p.atClients.waits.Load() {
		p.openWaiting()
	}
}

// forget is called with mu held.
func (p *udpPort) forget(f *udptunnel.ServerFlow) {
	delete(p.flows, keyOf(f))
	delete(p.atClients.unanswered, f)
	p.admission.left(f)
	f.Meter.Leave()
	p.ports.live.remove(p.live[f])
	delete(p.live, f)
}

// MayAnswer implements [udptunnel.PublicPort].
func (p *udpPort) MayAnswer(f *udptunnel.ServerFlow, bytes int) bool {
	source := f.Source.Addr()
	if p.ports.connected.has(source.Unmap()) || p.unproven.take(source, bytes, !f.Answered(), time.Now()) {
		return true
	}
	p.refusals.datagrams(RefusedUnproven, 1)
	return false
}

// Deliver implements [udptunnel.PublicPort].
func (p *udpPort) Deliver(datagrams []udpsock.Datagram) {
	if refused := p.conn.Write(datagrams); refused > 0 {
		p.refusals.datagrams(RefusedUnsendable, uint64(refused))
	}
	if p.atClients.waits.Load() {
		p.openWaiting()
	}
}

func (p *udpPort) resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.admission.draining = false
	return nil
}

func (p *udpPort) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.admission.draining = true
}

func (p *udpPort) remaining() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flows)
}
