package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

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
)

// localFlow is the local end of a flow: a socket of its own to one local target,
// which tells players apart by their source ports.
type localFlow struct {
	targets    *targets
	allocation types.ClientAllocation
	poller     *socketPoller
	flow       *udptunnel.ClientFlow
	sent       atomic.Uint64 // Datagrams sent to the target.

	mu         sync.Mutex
	closed     bool
	conn       *udpsock.Conn // nil while it is being opened.
	early      [][]byte      // Datagrams that came before that,
	earlyBytes int           // and their bytes.

	reads readState
}

// readState is what the reader of a flow's socket has noted of it.
type readState struct {
	answering bool // The target is known to: it need not be noted for every datagram.
	errors    int  // Failed reads, since so many datagrams had been sent:
	sent      uint64
}

// flow returns the local end of the flow that a tunnel server opens, and the PROXY
// header that goes before each of its datagrams.
func (t *targets) flow(server uuid.UUID, open *wire.Record, poller *socketPoller) (udptunnel.Target, []byte, error) {
	a, err := t.find(server, open.Allocation, types.ProtocolUDP)
	if err != nil {
		return nil, nil, err
	}
	header, err := proxyHeader(a, open.Source, open.Destination)
	if err != nil {
		return nil, nil, err
	}
	return &localFlow{targets: t, allocation: a, poller: poller}, header, nil
}

// Start implements [udptunnel.Target].
func (l *localFlow) Start(f *udptunnel.ClientFlow) {
	l.flow = f
	if _, err := netip.ParseAddr(l.allocation.LocalHost); err == nil {
		l.open() // It takes no time, and no datagram has to wait.
	} else {
		f.Go(l.open)
	}
}

// open opens the socket and has what the target sends passed on.
func (l *localFlow) open() {
	err := l.connect(l.flow.Context())
	if err == nil {
		err = l.poller.add(l)
	}
	if err != nil {
		l.flow.End()
	}
}

// connect opens the socket and sends the datagrams that came before.
func (l *localFlow) connect(ctx context.Context) error {
	dialled, err := l.targets.connect(ctx, l.allocation)
	if err != nil {
		return err
	}
	socket, ok := dialled.(*net.UDPConn)
	if !ok {
		_ = dialled.Close()
		return fmt.Errorf("dial %s: got a %T", dialled.RemoteAddr(), dialled)
	}
	// A game may answer in bursts.
	conn, err := udpsock.New(socket, udpsock.Options{ReadBuffer: udpsock.SocketBuffer})
	if err != nil {
		_ = socket.Close()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return net.ErrClosed
	}
	l.conn = conn
	for _, datagram := range l.early {
		l.write([]udpsock.Datagram{{Data: datagram}})
	}
	l.early = nil
	return nil
}

// Close implements [udptunnel.Target].
func (l *localFlow) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		l.poller.remove(l)
		_ = l.conn.Close()
	}
}

// received queues what the target has sent for the player. Records is memory for
// the datagrams' records.
func (l *localFlow) received(batch *udpsock.Batch, records []wire.Record) {
	if !l.reads.answering {
		l.targets.reached(l.allocation, nil)
		l.reads.answering = true
	}
	for i := range batch.Len() {
		payload := batch.Data(i)
		if len(payload) > wire.MaxDatagram {
			l.targets.counters.drop(dropTooLong)
			continue
		}
		records = append(records, wire.Record{Kind: wire.RecordDatagram, Flow: l.flow.Number(), Payload: payload})
	}
	l.flow.Queue(records)
	clear(records) // Their memory is borrowed.
	batch.Release()
}

// readFailed notes that a read failed, and ends the flow once there is no use in
// another one. A closed port, which the system reports by failing reads, ends no
// flow: the game may be restarting.
func (l *localFlow) readFailed(err error) (again bool) {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	l.targets.reached(l.allocation, err)
	l.reads.answering = false
	if sent := l.sent.Load(); sent != l.reads.sent {
		l.reads.sent, l.reads.errors = sent, 0
	}
	if l.reads.errors++; l.reads.errors <= readErrorLimit {
		return true
	}
	l.flow.End()
	return false
}

// Send implements [udptunnel.Target].
func (l *localFlow) Send(datagrams []udpsock.Datagram) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.write(datagrams)
		return
	}
	for i := range datagrams {
		size := len(datagrams[i].Head) + len(datagrams[i].Data)
		if len(l.early) >= earlyDatagrams || l.earlyBytes+size > earlyBytes {
			l.targets.counters.drop(dropWaiting)
			continue
		}
		whole := append(make([]byte, 0, size), datagrams[i].Head...)
		l.early = append(l.early, append(whole, datagrams[i].Data...))
		l.earlyBytes += size
	}
}

// write is called with mu held.
func (l *localFlow) write(datagrams []udpsock.Datagram) {
	l.sent.Add(uint64(len(datagrams)))
	if refused := l.conn.Write(datagrams); refused > 0 {
		l.targets.counters.dropped[dropUnsendable].Add(uint64(refused))
	}
}
