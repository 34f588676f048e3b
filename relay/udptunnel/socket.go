package udptunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

// packetRoom is room for the largest packet.
const packetRoom = 1536

// packet is one being made.
type packet struct {
	n    int // Its length; when it is being filled, header included and tag not.
	data [packetRoom]byte
}

var packets = sync.Pool{New: func() any { return new(packet) }}

func newPacket() *packet {
	p := packets.Get().(*packet)
	p.n = seal.HeaderSize
	return p
}

func release(all []*packet) {
	for i, p := range all {
		packets.Put(p)
		all[i] = nil
	}
}

// PacketSocket is a UDP socket on which sealed packets travel, those of one path at a
// tunnel client and of all at a tunnel server. It is read by one goroutine and
// written by any.
type PacketSocket struct {
	conn     *net.UDPConn
	system   system
	counters *PathCounters

	mu    sync.RWMutex
	paths map[uint64]*Path
}

// ListenPackets opens a socket on an address, such as ":7443"; for a tunnel server.
// What happens on it is counted in counters.
func ListenPackets(ctx context.Context, address string, counters *PathCounters) (*PacketSocket, error) {
	return newSocket(ctx, "udp", address, counters)
}

// newSocket opens a socket. Network is udp, udp4 or udp6.
func newSocket(ctx context.Context, network, address string, counters *PathCounters) (*PacketSocket, error) {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: got a %T", address, conn)
	}
	// As much as the system gives: packets come in bursts.
	_ = udp.SetReadBuffer(udpsock.SocketBuffer)
	_ = udp.SetWriteBuffer(udpsock.SocketBuffer)
	s := &PacketSocket{conn: udp, counters: counters, paths: map[uint64]*Path{}}
	if err := s.system.prepare(udp); err != nil {
		_ = udp.Close()
		return nil, err
	}
	return s, nil
}

// Address is where the socket is bound.
func (s *PacketSocket) Address() netip.AddrPort {
	if a, ok := s.conn.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// Close closes the socket, by which Serve ends.
func (s *PacketSocket) Close() { _ = s.conn.Close() }

// add has packets with a path's id passed to it. It reports whether no other
// path has that id.
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

// readPause is left after a failed read, so that one that goes on failing does
// not take a CPU.
const readPause = 10 * time.Millisecond

// Serve passes packets to their paths until the socket is closed.
func (s *PacketSocket) Serve() {
	r := &receiver{socket: s}
	for {
		err := s.system.read(s.conn, r)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Some systems report here that an earlier packet was not taken.
			time.Sleep(readPause)
		}
	}
}

// receiver is the reading side of a socket. It keeps together what comes together
// for one path.
type receiver struct {
	socket *PacketSocket
	path   *Path // Whose records are held.
	now    time.Time
	held   inbox

	reading reading
}

// take takes one packet. Its memory is held until flush.
func (r *receiver) take(data []byte, from *address) {
	id, ok := seal.ID(data)
	if r.path == nil || r.path.id != id || !ok {
		r.flush()
		r.socket.mu.RLock()
		r.path = r.socket.paths[id]
		r.socket.mu.RUnlock()
		if r.path == nil || !ok {
			// Not answered: an answer would tell strangers that somebody is here, and
			// could be had sent to a third.
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

// flush hands on what is held.
func (r *receiver) flush() {
	if r.path != nil {
		r.path.deliver(&r.held)
	}
	r.path, r.now = nil, time.Time{}
}
