// Package path carries the records of package wire in sealed packets over UDP,
// beside a datagram data connection, for as long as such packets arrive: no
// datagram waits behind a lost one there, as it does on TCP. [Ways] sends each
// record the better of the two ways. Both ends of the tunnel use it.
//
// How packets and paths work is specified in the documentation of package wire.
//
//	path.go    a path: its queue, what is sent and what has come
//	state.go   whether packets arrive, and how long they may be
//	ways.go    which way a record takes
//	socket.go  UDP sockets, read and written many packets at a time
package path

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/forward"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Options say what a path carries.
type Options struct {
	Keys seal.Keys
	// Handle is given the records that come, of which it has those in packets to
	// itself, until it returns. One goroutine calls it, that of the socket. An
	// error, or a packet that holds what is no record, is given to Fail, once.
	Handle func([]wire.Record) error
	Fail   func(error)
	// Queue is how many bytes of packets wait at most for Flush; 0:
	// forward.DefaultQueue.
	Queue int
	// Datagrams counts the datagrams that take this way.
	Datagrams *forward.DatagramCounters
}

// Path is one end of a path. Its methods may be called from any goroutine.
type Path struct {
	o        Options
	id       uint64
	client   bool
	socket   *Socket
	owned    bool // The socket is this path's alone.
	counters *Counters

	up     atomic.Bool
	eager  atomic.Bool  // Probes should be sent whenever there is a chance.
	budget atomic.Int64 // Bytes of records that a packet has room for.
	failed atomic.Bool

	queueMu sync.Mutex
	queue   []*packet
	closed  bool

	sendMu sync.Mutex // Held while packets are sealed and written, in their order.
	sealer *seal.Sealer
	list   []*packet // The queue's other memory.

	mu     sync.Mutex
	opener *seal.Opener
	state  state
}

// inbox is what has come and is not handed on yet.
type inbox struct {
	records [64]wire.Record
	n       int
	now     time.Time
	probe   uint64 // To be answered,
	probed  bool   // if there is one.
}

// NewPath makes the tunnel server's end of a path. Where it may send, the first
// packet says.
func (s *Socket) NewPath(o Options) (*Path, error) {
	p := newPath(o, s, false)
	p.sealer, p.opener = o.Keys.Server()
	if !s.add(p) {
		return nil, fmt.Errorf("there is a path with the id %x already", p.id)
	}
	return p, nil
}

// Dial makes the tunnel client's end of a path, to where the tunnel server takes
// packets, on a socket of its own that Serve reads. What happens on it is counted
// in counters.
func Dial(ctx context.Context, server netip.AddrPort, o Options, counters *Counters) (*Path, error) {
	network := "udp6"
	if server.Addr().Unmap().Is4() {
		network = "udp4"
	}
	// Bound to no address: each packet leaves from the one that the route has then.
	s, err := newSocket(ctx, network, ":0", counters)
	if err != nil {
		return nil, err
	}
	p := newPath(o, s, true)
	p.owned = true
	p.sealer, p.opener = o.Keys.Client()
	p.state.peer, p.state.known = s.system.resolve(server), true
	p.eager.Store(true)
	s.add(p)
	return p, nil
}

func newPath(o Options, s *Socket, client bool) *Path {
	if o.Queue == 0 {
		o.Queue = forward.DefaultQueue
	}
	p := &Path{o: o, id: o.Keys.ID, client: client, socket: s, counters: s.counters}
	p.resize(0)
	return p
}

// Serve reads the socket of a path that Dial has made, until Close.
func (p *Path) Serve() { p.socket.Serve() }

// Up reports whether packets arrive.
func (p *Path) Up() bool { return p.up.Load() }

// Close ends the path, and its socket where Dial has made it. It does not wait.
func (p *Path) Close() {
	p.queueMu.Lock()
	p.closed = true
	release(p.queue)
	p.queue = nil
	p.queueMu.Unlock()
	p.socket.remove(p)
	p.mu.Lock()
	p.state.known, p.state.ended = false, true
	p.setUp(false)
	p.mu.Unlock()
	if p.owned {
		p.socket.Close()
	}
}

// outcome is what has become of records.
type outcome int

const (
	elsewhere outcome = iota // They do not fit, or the path is down: another way is theirs.
	taken
	dropped
)

// put queues records that belong together.
func (p *Path) put(records []wire.Record) outcome {
	if !p.up.Load() {
		return elsewhere
	}
	size, payload, datagrams := 0, 0, 0
	for i := range records {
		size += wire.EncodedSize(&records[i])
		if records[i].Kind == wire.RecordDatagram {
			payload += len(records[i].Payload)
			datagrams++
		}
	}
	if size > int(p.budget.Load()) {
		return elsewhere
	}
	p.queueMu.Lock()
	done := p.putLocked(records, size)
	p.queueMu.Unlock()
	switch done {
	case taken:
		p.o.Datagrams.Sent.Add(uint64(datagrams))
		p.o.Datagrams.SentBytes.Add(uint64(payload))
	case dropped:
		p.o.Datagrams.Overflowed.Add(uint64(datagrams))
	}
	return done
}

// putAll queues datagrams that have nothing to do with each other, as far as they
// fit, and hands those that do not to other.
func (p *Path) putAll(datagrams []wire.Record, other func(*wire.Record)) {
	budget := int(p.budget.Load())
	sent, payload, overflowed := 0, 0, 0
	var next int
	p.queueMu.Lock()
	for next = range datagrams {
		d := datagrams[next : next+1]
		size := wire.EncodedSize(&d[0])
		if size > budget {
			continue
		}
		if p.putLocked(d, size) == taken {
			sent++
			payload += len(d[0].Payload)
		} else {
			overflowed++
		}
	}
	p.queueMu.Unlock()
	p.o.Datagrams.Sent.Add(uint64(sent))
	p.o.Datagrams.SentBytes.Add(uint64(payload))
	p.o.Datagrams.Overflowed.Add(uint64(overflowed))
	if sent+overflowed == len(datagrams) {
		return
	}
	for i := range datagrams {
		if wire.EncodedSize(&datagrams[i]) > budget {
			other(&datagrams[i])
		}
	}
}

func (p *Path) putLocked(records []wire.Record, size int) outcome {
	if p.closed {
		return elsewhere
	}
	var last *packet
	if n := len(p.queue); n > 0 {
		last = p.queue[n-1]
	}
	if last == nil || last.n-seal.HeaderSize+size > int(p.budget.Load()) {
		if len(p.queue)*packetRoom >= p.o.Queue {
			return dropped
		}
		last = newPacket()
		p.queue = append(p.queue, last)
	}
	for i := range records {
		last.append(&records[i])
	}
	return taken
}

func (p *packet) append(r *wire.Record) { p.n = len(wire.AppendRecord(p.data[:p.n], *r)) }

// Flush writes what is queued.
func (p *Path) Flush() {
	p.queueMu.Lock()
	empty := len(p.queue) == 0
	p.queueMu.Unlock()
	if empty && !p.eager.Load() {
		return
	}
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	p.queueMu.Lock()
	p.queue, p.list = p.list[:0], p.queue
	p.queueMu.Unlock()
	p.transmit(time.Now(), len(p.list) > 0)
}

// transmit seals and sends the packets of list, and with them what probes are due.
// It is called with sendMu held. Used says that there are players' among them.
func (p *Path) transmit(now time.Time, used bool) {
	p.mu.Lock()
	probes, to, known := p.due(now, used)
	p.mu.Unlock()
	if known {
		for _, probe := range probes {
			if probe.number != 0 {
				p.list = append(p.list, newProbe(probe))
			}
		}
	}
	if !known || len(p.list) == 0 {
		release(p.list)
		return
	}
	for _, packet := range p.list {
		sealed, err := p.sealer.Seal(packet.data[:packet.n])
		if err != nil {
			release(p.list)
			p.fail(err)
			return
		}
		packet.n = len(sealed)
	}
	unsent, why := p.socket.system.write(p.socket.conn, p.list, &to)
	p.counters.Sent.Add(uint64(len(p.list) - unsent))
	release(p.list)
	if unsent == 0 {
		return
	}
	p.counters.Unsendable.Add(uint64(unsent))
	if tooLong(why) {
		p.mu.Lock()
		p.shrink(now)
		p.mu.Unlock()
	}
}

// newProbe makes the packet of a probe.
func newProbe(of probe) *packet {
	packet := newPacket()
	r := wire.Record{Kind: wire.RecordProbe, Flow: of.number}
	empty := wire.EncodedSize(&r)
	// The length of the padding takes two bytes, one more than that of none.
	r.Payload = padding[:of.size-seal.Overhead-empty-1]
	packet.append(&r)
	return packet
}

var padding [packetRoom]byte

// answer answers a probe.
func (p *Path) answer(number uint64, now time.Time) {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	packet := newPacket()
	packet.append(&wire.Record{Kind: wire.RecordAnswer, Flow: number})
	p.list = append(p.list[:0], packet)
	p.transmit(now, false)
}

// receive opens a packet and puts its records into held.
func (p *Path) receive(data []byte, from *address, now time.Time, held *inbox) {
	p.mu.Lock()
	records, newest, err := p.opener.Open(data)
	if err == nil {
		p.heard(from, newest, now)
	}
	p.mu.Unlock()
	switch {
	case errors.Is(err, seal.ErrReplayed):
		p.counters.Replayed.Add(1)
		return
	case err != nil:
		p.counters.Forged.Add(1)
		return
	}
	p.counters.Received.Add(1)
	held.now = now
	for len(records) > 0 {
		r := &held.records[held.n]
		if *r, records, err = wire.NextRecord(records); err != nil {
			p.fail(err)
			return
		}
		switch r.Kind {
		case wire.RecordProbe:
			held.probe, held.probed = r.Flow, true
		case wire.RecordAnswer:
			p.mu.Lock()
			p.answered(r.Flow, now)
			p.mu.Unlock()
		default:
			if held.n++; held.n == len(held.records) {
				p.hand(held)
			}
		}
	}
}

// deliver hands on what is held, and answers the last probe.
func (p *Path) deliver(held *inbox) {
	p.hand(held)
	if held.probed {
		held.probed = false
		p.answer(held.probe, held.now)
	}
}

// hand hands on the records that are held.
func (p *Path) hand(held *inbox) {
	records := held.records[:held.n]
	held.n = 0
	if len(records) == 0 {
		return
	}
	datagrams, payload := 0, 0
	for i := range records {
		if records[i].Kind == wire.RecordDatagram {
			datagrams++
			payload += len(records[i].Payload)
		}
	}
	p.o.Datagrams.Received.Add(uint64(datagrams))
	p.o.Datagrams.ReceivedBytes.Add(uint64(payload))
	p.mu.Lock()
	p.state.used = held.now
	p.mu.Unlock()
	if err := p.o.Handle(records); err != nil {
		p.fail(err)
	}
}

// fail tells the owner that the other end does not keep to the protocol.
func (p *Path) fail(err error) {
	if !p.failed.Swap(true) {
		p.o.Fail(err)
	}
}

// ServerAddress is where a tunnel server takes packets on a port, that was reached
// at an address by TCP.
func ServerAddress(reached net.Addr, port uint16) (netip.AddrPort, bool) {
	tcp, ok := reached.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr(), port), true
}
