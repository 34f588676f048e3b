package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// earlyDatagrams and earlyBytes bound what waits while a flow's socket is
	// being opened, which takes time where a name has to be resolved.
	earlyDatagrams = 64
	earlyBytes     = 128 << 10
	// idleMargin is how much longer than the tunnel server the agent keeps a
	// silent flow. The tunnel server sees every datagram of both directions that
	// arrives and ends flows; this is for those of which its close was lost.
	idleMargin = 10 * time.Second
	// deafErrors is how many reads of a flow's socket may fail without a
	// datagram being sent between them. Each datagram to a closed port yields
	// one at most.
	deafErrors = 8
)

// flow is one player talking to one local target, on a socket of its own: the
// target tells players apart by their source ports.
type flow struct {
	flows      *flows
	number     uint64
	allocation types.ClientAllocation
	header     []byte // Put before every datagram.
	idle       time.Duration
	used       atomic.Int64  // When a datagram last passed, in udptunnel.Ticks.
	sent       atomic.Uint64 // Datagrams sent to the target.
	told       atomic.Bool   // The tunnel server closed it.
	ended      context.Context
	end        context.CancelFunc

	mu      sync.Mutex
	socket  *net.UDPConn  // nil while it is being opened.
	packets *udpsock.Conn // Of socket.
	early   [][]byte      // Datagrams that came before that,
	waits   int           // and their bytes.

	hearing hearing
}

// hearing is what whoever reads a flow's socket has noted of it.
type hearing struct {
	answering bool // The target is known to: it need not be noted for every datagram.
	failed    int  // Reads, since so many datagrams had been sent:
	sent      uint64
}

func (f *flow) touch() { f.used.Store(udptunnel.Ticks(time.Now())) }

// run opens the flow's socket and has what the target sends passed on until the
// flow ends.
func (f *flow) run() {
	err := f.connect()
	if err == nil {
		err = f.flows.ears.add(f)
	}
	if err != nil {
		f.end()
	}
}

// connect opens the flow's socket and sends what has waited for it.
func (f *flow) connect() error {
	conn, err := f.flows.link.links.targets.connect(f.ended, f.allocation)
	if err != nil {
		return err
	}
	socket, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return fmt.Errorf("dial %s: got a %T", conn.RemoteAddr(), conn)
	}
	// As much as the system gives: a game may answer in bursts.
	_ = socket.SetReadBuffer(udpsock.SocketBuffer)
	packets, err := udpsock.New(socket)
	if err != nil {
		_ = socket.Close()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended.Err() != nil { // close has been here, or will be.
		_ = socket.Close()
		return f.ended.Err()
	}
	f.socket, f.packets = socket, packets
	for _, payload := range f.early {
		f.write([]udpsock.Outgoing{{Head: f.header, Data: payload}})
	}
	f.early = nil
	return nil
}

// close closes the flow's socket, if it is open.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.socket != nil {
		_ = f.socket.Close()
	}
}

// hear queues what the target has sent.
func (f *flow) hear(packets *udpsock.Batch, records []wire.Record) {
	if !f.hearing.answering {
		f.flows.link.links.targets.reached(f.allocation, nil)
		f.hearing.answering = true
	}
	f.touch()
	for i := range packets.Len() {
		payload := packets.Data(i)
		if len(payload) > wire.MaxDatagram {
			f.drop(dropTooLong)
			continue
		}
		records = append(records, wire.Record{Kind: wire.RecordDatagram, Flow: f.number, Payload: payload})
	}
	f.flows.ways.QueueAll(records)
	clear(records) // Their memory is borrowed.
	packets.Release()
}

// unheard notes that a read failed, and reports whether there is any use in
// another one. A port that is closed, which the system reports by failing reads,
// ends no flow: the game may be restarting.
func (f *flow) unheard(err error) (again bool) {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	f.flows.link.links.targets.reached(f.allocation, err)
	h := &f.hearing
	h.answering = false
	if now := f.sent.Load(); now != h.sent {
		h.sent, h.failed = now, 0
	}
	h.failed++
	return h.failed <= deafErrors
}

func (f *flow) drop(why drop) { f.flows.counters().drop(why) }

// send passes a player's datagrams to the target.
func (f *flow) send(out []udpsock.Outgoing) {
	f.touch()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.socket != nil {
		f.write(out)
		return
	}
	for i := range out {
		payload := out[i].Data
		if len(f.early) >= earlyDatagrams || f.waits+len(payload) > earlyBytes {
			f.drop(dropWaiting)
			continue
		}
		f.early = append(f.early, append([]byte(nil), payload...))
		f.waits += len(payload)
	}
}

func (f *flow) write(out []udpsock.Outgoing) {
	f.sent.Add(uint64(len(out)))
	if refused := f.packets.Write(out); refused > 0 {
		f.flows.counters().dropped[dropUnsendable].Add(uint64(refused))
	}
}
