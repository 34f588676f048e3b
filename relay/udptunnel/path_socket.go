package udptunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// packetRoom is the memory of a packet, in bytes: enough for the largest.
const packetRoom = 1536

// packet is a packet being made.
type packet struct {
	n    int // Its length in bytes; while it is filled, with the header and without the tag.
	data [packetRoom]byte
}

var packets = sync.Pool{New: func() any { return new(packet) }}

func newPacket() *packet {
	p := packets.Get().(*packet)
	p.n = seal.HeaderSize
	return p
}

// size is how many bytes of records a packet that is filled has.
func (p *packet) size() int { return p.n - seal.HeaderSize }

func (p *packet) append(r *wire.Record) { p.n = len(wire.AppendRecord(p.data[:p.n], *r)) }

func release(all []*packet) {
	for i, p := range all {
		packets.Put(p)
		all[i] = nil
	}
}

// PacketSocket is a UDP socket for sealed packets: those of one path at a tunnel
// client, those of all paths at a tunnel server. One goroutine reads it, any
// goroutine may write.
type PacketSocket struct {
	conn     *udpsock.Conn
	counters *PathCounters

	mu    sync.RWMutex
	paths map[uint64]*Path
}

// ListenPackets opens a tunnel server's socket on an address such as ":7443". Its
// packets are counted in counters.
func ListenPackets(ctx context.Context, address string, counters *PathCounters) (*PacketSocket, error) {
	return newSocket(ctx, "udp", address, counters)
}

// newSocket opens a socket. Network is udp, udp4 or udp6.
func newSocket(ctx context.Context, network, address string, counters *PathCounters) (*PacketSocket, error) {
	conn, err := udpsock.Listen(ctx, network, address, udpsock.Options{
		Destinations: true,
		Coalesce:     true,
		ProbeMTU:     true,
		ReadBuffer:   udpsock.SocketBuffer,
		WriteBuffer:  udpsock.SocketBuffer,
	})
	if err != nil {
		return nil, err
	}
	return &PacketSocket{conn: conn, counters: counters, paths: map[uint64]*Path{}}, nil
}

// Address is the address that the socket is bound to.
func (s *PacketSocket) Address() netip.AddrPort { return s.conn.LocalAddr() }

// Close closes the socket, which ends Serve.
func (s *PacketSocket) Close() { _ = s.conn.Close() }

// add registers a path under its id. It reports whether the id was free.
func (s *PacketSocket) add(p *Path) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths[p.id] != nil {
		return false
	}
	s.paths[p.id] = p
	return true
}

func (s *PacketSocket) remove(p *Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paths[p.id] == p {
		delete(s.paths, p.id)
	}
}

// readPause is the pause after a failed read: a socket that keeps failing must not
// take a whole CPU.
const readPause = 10 * time.Millisecond

// Serve passes packets to their paths until the socket is closed.
func (s *PacketSocket) Serve() {
	r := &receiver{socket: s}
	for {
		batch, err := s.conn.Read()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Some systems report here that an earlier packet could not be delivered.
			time.Sleep(readPause)
			continue
		}
		for i := range batch.Len() {
			from := batch.Endpoint(i)
			r.take(batch.Data(i), &from)
		}
		r.flush()
		batch.Release()
	}
}

// receiver is the reading side of a socket. It gathers the records of packets that
// arrive together for one path.
type receiver struct {
	socket *PacketSocket
	path   *Path // The path whose records are held.
	now    time.Time
	held   inbox
}

// take processes one packet. Its memory is used until flush.
func (r *receiver) take(data []byte, from *udpsock.Endpoint) {
	id, ok := seal.ID(data)
	if r.path == nil || r.path.id != id || !ok {
		r.flush()
		r.socket.mu.RLock()
		r.path = r.socket.paths[id]
		r.socket.mu.RUnlock()
		if r.path == nil || !ok {
			// Not answered: an answer would show anyone who asks that this port is
			// in use, and a forged source would have it sent to a third party.
			r.path = nil
			r.socket.counters.Unknown.Add(1)
			return
		}
	}
	if r.now.IsZero() {
		r.now = time.Now()
	}
	r.path.receive(data, from, r.now, &r.held)
}

// flush handles what is held.
func (r *receiver) flush() {
	if r.path != nil {
		r.path.deliver(&r.held)
	}
	r.path, r.now = nil, time.Time{}
}
