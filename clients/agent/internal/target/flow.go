package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// earlyDatagrams and earlyBytes bound what waits while a flow's socket is being
	// opened, which takes time where a name has to be resolved.
	earlyDatagrams = 64
	earlyBytes     = 128 << 10
	// readErrorLimit is how many reads of a flow's socket may fail without a
	// datagram being sent between them. Each datagram to a closed port yields one
	// error at most.
	readErrorLimit = 8
	// unansweredDatagrams is how many datagrams a game should have answered with one.
	unansweredDatagrams = 3
)

// flowSocket is the local end of a flow: a socket of its own, since the local target
// tells players apart by their source ports.
type flowSocket struct {
	dialer     *Dialer
	allocation types.ClientAllocation
	player     netip.AddrPort
	poller     *socketPoller
	flow       *udptunnel.ClientFlow
	sent       atomic.Uint64 // Datagrams sent to the target.
	source     netip.Addr    // Where the player comes from; the zero Addr: the system chooses.
	left       func()        // Releases source.
	proven     atomic.Bool   // The player has spoken after an answer of the game.
	holds      bool          // A file is the flow's to give back. Guarded by openFlows.mu.
	joined     bool          // It is counted as a player,
	ended      bool          // and can no longer be. Both are guarded by openFlows.mu.
	counted    *carried
	peer       peerState

	mu         sync.Mutex
	closed     bool
	conn       *udpsock.Conn // nil while it is being opened.
	forget     func()        // Removes it from the Dialer's hops.
	connected  bool          // Receives from the target's address alone.
	remote     net.Addr      // The target's.
	early      [][]byte      // Datagrams that came before that,
	earlyBytes int           // and their bytes.

	reads    readState
	answered atomic.Bool
}

// readState belongs to the goroutine that reads the socket.
type readState struct {
	answering bool   // The target is known to answer: no need to record every datagram.
	errors    int    // Consecutive failed reads without a datagram sent,
	sent      uint64 // and how many had been sent before the first of them.
}

// Start implements [udptunnel.Target].
func (s *flowSocket) Start(f *udptunnel.ClientFlow) {
	s.flow = f
	s.left = func() {}
	s.counted = s.dialer.traffic.enter(s.allocation.ID)
	if s.dialer.checkLoop(s.allocation, s.player) != nil || !s.dialer.flows.enter(s) {
		f.End()
		return
	}
	s.source, s.left = s.dialer.source(s.allocation, s.player.Addr())
	if _, err := netip.ParseAddr(s.allocation.LocalHost); err == nil {
		s.open() // An address needs no resolver: no datagram has to wait.
	} else {
		f.Go(s.open)
	}
}

// open opens the socket and has it read.
func (s *flowSocket) open() {
	err := s.connect(s.flow.Context())
	if err == nil {
		err = s.poller.add(s)
	}
	if err != nil {
		s.flow.End()
	}
}

// connect opens the socket and sends the datagrams that came before.
func (s *flowSocket) connect(ctx context.Context) error {
	dialled, err := s.dialer.connect(ctx, s.allocation, s.source)
	if err != nil {
		return err
	}
	socket, ok := dialled.(*net.UDPConn)
	if !ok {
		_ = dialled.Close()
		return fmt.Errorf("dial %s: got a %T", dialled.RemoteAddr(), dialled)
	}
	conn, err := s.socket(ctx, socket)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return net.ErrClosed
	}
	s.conn, s.remote = conn, dialled.RemoteAddr()
	s.forget = s.dialer.hops.add(s.allocation, conn.LocalAddr(), s.player)
	for _, datagram := range s.early {
		s.write([]udpsock.Datagram{{Data: datagram}})
	}
	s.early = nil
	return nil
}

// Close implements [udptunnel.Target].
func (s *flowSocket) Close() {
	defer s.dialer.traffic.leave(s.counted)
	defer s.dialer.flows.leave(s)
	defer s.left()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		s.poller.remove(s)
		s.forget()
		_ = s.conn.Close()
		if s.connected && !s.answered.Load() && s.sent.Load() >= unansweredDatagrams {
			s.dialer.unanswered(s.allocation)
		}
	}
}

// received queues what the target has sent for the player. Records is memory for
// the datagrams' records.
func (s *flowSocket) received(batch *udpsock.Batch, records []wire.Record) {
	defer batch.Release()
	for i := range batch.Len() {
		if !s.answers(batch, i) {
			continue
		}
		if !s.reads.answering {
			s.dialer.reached(s.allocation, nil)
			s.dialer.dialer.Worked(s.remote)
			s.reads.answering = true
			s.answered.Store(true)
		}
		datagram := batch.Data(i)
		if len(datagram) > wire.MaxDatagram {
			s.dialer.counters.tooLong.Add(1)
			continue
		}
		records = append(records, wire.Record{Kind: wire.RecordDatagram, Flow: s.flow.Number(), Payload: datagram})
	}
	if len(records) > 0 {
		s.counted.Sent.Add(payload(records))
		s.flow.Queue(records)
		clear(records) // Their memory is borrowed.
	}
}

// payload returns the bytes of datagrams.
func payload(records []wire.Record) (bytes uint64) {
	for i := range records {
		bytes += uint64(len(records[i].Payload))
	}
	return bytes
}

// readFailed handles a failed read: it reports whether to read again, and ends the
// flow once the limit is reached. A closed port, which the system reports by failing
// reads, ends no flow: the game may be restarting. If it has never answered and the
// target is a name, the flow ends, so that the player's next datagram is sent to another
// address of that name, should it have one.
func (s *flowSocket) readFailed(err error) (again bool) {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	s.dialer.reached(s.allocation, err)
	s.reads.answering = false
	s.dialer.Failed(s.remote)
	if _, err := netip.ParseAddr(s.allocation.LocalHost); err != nil && !s.answered.Load() {
		s.flow.End()
		return false
	}
	if sent := s.sent.Load(); sent != s.reads.sent {
		s.reads.sent, s.reads.errors = sent, 0
	}
	if s.reads.errors++; s.reads.errors <= readErrorLimit {
		return true
	}
	s.flow.End()
	return false
}

// Send implements [udptunnel.Target].
func (s *flowSocket) Send(datagrams []udpsock.Datagram) {
	if !s.proven.Load() && s.answered.Load() {
		s.dialer.flows.prove(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.write(datagrams)
		return
	}
	for i := range datagrams {
		size := len(datagrams[i].Head) + len(datagrams[i].Data)
		if len(s.early) >= earlyDatagrams || s.earlyBytes+size > earlyBytes {
			s.dialer.counters.waitingLimit.Add(1)
			continue
		}
		whole := append(make([]byte, 0, size), datagrams[i].Head...)
		s.early = append(s.early, append(whole, datagrams[i].Data...))
		s.earlyBytes += size
	}
}

// write is called with mu held.
func (s *flowSocket) write(datagrams []udpsock.Datagram) {
	s.sent.Add(uint64(len(datagrams)))
	var bytes uint64
	for i := range datagrams {
		bytes += uint64(len(datagrams[i].Data))
	}
	s.counted.Received.Add(bytes)
	s.address(datagrams)
	if refused := s.conn.Write(datagrams); refused > 0 {
		s.dialer.counters.unsendable.Add(uint64(refused))
	}
}
