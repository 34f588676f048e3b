// Package udptunnel carries players' datagrams between the two ends of a tunnel, in
// UDP sessions: [ServerSession] at the tunnel server, [ClientSession] at the tunnel
// client. A session has two transports: a data connection ([DataConn]), which is a
// WebSocket, and, where they arrive, sealed UDP packets ([Path]), on which no datagram
// waits behind a lost one as it does on TCP. [Selector] chooses between them.
//
// In come records from the peer and datagrams from public ports ([PlayerDatagrams])
// or local targets ([ClientFlow.Queue]); out go datagrams to those. A caller of Serve,
// ServeData or Run owns the goroutine that it blocks and those started by it.
//
// Package wire specifies records, packets and paths.
package udptunnel

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// PathOptions configure a path.
type PathOptions struct {
	Keys seal.Keys // Not kept: the epochs' keys follow from them.
	// Handle is called with the records that arrive, by the goroutine that reads the
	// socket. The records and their payloads are valid until it returns. An error of
	// it, or a malformed packet, is passed to Fail, once. Required.
	Handle func([]wire.Record) error
	Fail   func(error)
	// Queue is how many bytes of packets wait for Flush at most; 0: [DefaultQueue].
	Queue int
	// Split says that the other end joins datagrams that are split over two packets.
	// Otherwise those take another transport.
	Split bool
	// Datagrams counts the datagrams that take the path. Required.
	Datagrams *DatagramCounters
}

// Path is one end of a sealed path. Its methods may be called from any goroutine.
type Path struct {
	o        PathOptions
	id       uint64
	client   bool
	socket   *PacketSocket
	owned    bool // The socket belongs to this path.
	counters *PathCounters

	up     atomic.Bool
	eager  atomic.Bool  // Probes should be sent at every flush.
	budget atomic.Int64 // Bytes of records that fit into a packet.
	failed atomic.Bool

	queueMu sync.Mutex
	queue   []*packet
	splits  uint64 // How many datagrams have been split.
	closed  bool

	sendMu sync.Mutex // Held while packets are sealed and written, in their order.
	sealer *seal.Sealer
	list   []*packet          // The queue's other memory.
	out    []udpsock.Datagram // The list, sealed, on its way
	to     udpsock.Endpoint   // to the peer.

	mu     sync.Mutex
	opener *seal.Opener
	state  state
	halves halves
}

// NewPath makes the tunnel server's end of a path. It sends to the address from which
// the client's newest packet came, once that has answered a challenge.
func (s *PacketSocket) NewPath(o PathOptions) (*Path, error) {
	p := newPath(o, s, false)
	p.sealer, p.opener = o.Keys.Server()
	if !s.add(p) {
		return nil, fmt.Errorf("there is a path with the id %x already", p.id)
	}
	return p, nil
}

// DialPath makes the tunnel client's end of a path, to where the tunnel server takes
// packets, on a socket of its own that Serve reads. What happens on it is counted
// in counters.
func DialPath(ctx context.Context, server netip.AddrPort, o PathOptions, counters *PathCounters) (*Path, error) {
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
	p.state.peer, p.state.known = s.conn.Endpoint(server), true
	p.eager.Store(true)
	s.add(p)
	return p, nil
}

func newPath(o PathOptions, s *PacketSocket, client bool) *Path {
	if o.Queue == 0 {
		o.Queue = DefaultQueue
	}
	p := &Path{o: o, id: o.Keys.ID, client: client, socket: s, counters: s.counters}
	p.o.Keys = seal.Keys{}
	p.resize(0)
	return p
}

// Serve reads the socket of a path that DialPath has made, until Close.
func (p *Path) Serve() { p.socket.Serve() }

// Up reports whether packets arrive.
func (p *Path) Up() bool { return p.up.Load() }

// Received reports whether an authentic packet has ever come.
func (p *Path) Received() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.state.receivedAt.IsZero()
}

// Close ends the path, and its socket where DialPath has made it. It does not wait.
func (p *Path) Close() {
	p.queueMu.Lock()
	p.closed = true
	release(p.queue)
	p.queue = nil
	p.queueMu.Unlock()
	p.socket.remove(p)
	p.mu.Lock()
	p.state.known, p.state.ended, p.state.candidates = false, true, nil
	p.setUp(false)
	p.mu.Unlock()
	if p.owned {
		p.socket.Close()
	}
}

// fail tells the owner that the other end does not keep to the protocol.
func (p *Path) fail(err error) {
	if !p.failed.Swap(true) {
		p.o.Fail(err)
	}
}
