package agent

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

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/forward"
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

// flows are the UDP flows of one datagram data connection.
type flows struct {
	session  *session
	conn     *forward.DatagramConn
	ctx      context.Context // Of the data connection: it is the flows' owner.
	work     sync.WaitGroup
	ears     ears
	gathered gathered // Of handle's goroutine.

	mu     sync.Mutex
	open   map[uint64]*flow
	counts map[int64]int // Flows of each allocation.
}

// flow is one player talking to one local target, on a socket of its own: the
// target tells players apart by their source ports.
type flow struct {
	flows      *flows
	number     uint64
	allocation types.ClientAllocation
	header     []byte // Put before every datagram.
	idle       time.Duration
	used       atomic.Int64  // When a datagram last passed, in Unix nanoseconds.
	sent       atomic.Uint64 // Datagrams sent to the target.
	told       atomic.Bool   // The tunnel server closed it.
	ended      context.Context
	end        context.CancelFunc

	mu      sync.Mutex
	socket  *net.UDPConn        // nil while it is being opened.
	packets *forward.PacketConn // Of socket.
	early   [][]byte            // Datagrams that came before that,
	waits   int                 // and their bytes.

	hearing hearing
}

// hearing is what whoever reads a flow's socket has noted of it.
type hearing struct {
	answering bool // The target is known to: it need not be noted for every datagram.
	failed    int  // Reads, since so many datagrams had been sent:
	sent      uint64
}

// serveDatagrams serves a datagram data connection until it or ctx ends.
func (s *session) serveDatagrams(ctx context.Context, ws *websocket.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	l := s.link.links
	f := &flows{
		session: s,
		conn:    forward.NewDatagramConn(l.opts.Limits.DatagramQueue, &l.counters.datagrams),
		ctx:     ctx,
		open:    map[uint64]*flow{},
		counts:  map[int64]int{},
	}
	stop := context.AfterFunc(ctx, f.conn.Close)
	defer stop()
	if err := f.ears.open(f); err != nil {
		cancel()
		_ = ws.Close()
		return err
	}
	f.work.Go(f.sweep)
	err := f.conn.Serve(ws, f.handle)
	cancel()
	f.ears.close()
	f.work.Wait()
	return err
}

// start opens a flow. One that may not be opened is closed again.
func (f *flows) start(r *wire.Record) error {
	targets := f.session.link.links.targets
	a, err := targets.find(f.session.link.server, r.Allocation, types.ProtocolUDP)
	var header []byte
	if err == nil {
		header, err = proxyHeader(a, r.Source, r.Destination)
	}
	if err != nil {
		f.session.link.log.Debug("flow refused", slog.Int64("allocationId", r.Allocation), slog.Any("reason", err))
		f.conn.Send(wire.Record{Kind: wire.RecordClose, Flow: r.Flow})
		return nil
	}
	flow := &flow{
		flows: f, number: r.Flow, allocation: a, header: header,
		idle: time.Duration(r.IdleSeconds)*time.Second + idleMargin,
	}
	flow.ended, flow.end = context.WithCancel(f.ctx)
	flow.touch()
	f.mu.Lock()
	if f.open[r.Flow] != nil {
		f.mu.Unlock()
		flow.end()
		return wire.ErrMalformed // A number is used once.
	}
	if f.counts[a.ID] >= f.session.link.links.opts.Limits.Flows {
		f.mu.Unlock()
		flow.end()
		f.conn.Send(wire.Record{Kind: wire.RecordClose, Flow: r.Flow})
		return nil
	}
	f.open[r.Flow] = flow
	f.counts[a.ID]++
	f.counters().flows.Add(1)
	f.mu.Unlock()
	// Owned by work until it has been removed.
	f.work.Add(1)
	context.AfterFunc(flow.ended, func() {
		defer f.work.Done()
		flow.close()
		f.remove(flow)
	})
	if _, err := netip.ParseAddr(a.LocalHost); err == nil {
		flow.run() // It takes no time, and no datagram has to wait.
	} else {
		f.work.Go(flow.run)
	}
	return nil
}

func (f *flows) counters() *counters { return &f.session.link.links.counters }

func (f *flows) remove(flow *flow) {
	f.mu.Lock()
	delete(f.open, flow.number)
	f.counters().flows.Add(-1)
	if f.counts[flow.allocation.ID]--; f.counts[flow.allocation.ID] == 0 {
		delete(f.counts, flow.allocation.ID)
	}
	f.mu.Unlock()
	if !flow.told.Load() {
		f.conn.Send(wire.Record{Kind: wire.RecordClose, Flow: flow.number})
	}
}

// sweep ends the flows on which both directions have been silent.
func (f *flows) sweep() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case now := <-ticker.C:
			f.mu.Lock()
			for _, flow := range f.open {
				if now.UnixNano()-flow.used.Load() > int64(flow.idle) {
					flow.end()
				}
			}
			f.mu.Unlock()
		}
	}
}

func (f *flow) touch() { f.used.Store(time.Now().UnixNano()) }

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
	conn, err := f.flows.session.link.links.targets.connect(f.ended, f.allocation)
	if err != nil {
		return err
	}
	socket, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return fmt.Errorf("dial %s: got a %T", conn.RemoteAddr(), conn)
	}
	// As much as the system gives: a game may answer in bursts.
	_ = socket.SetReadBuffer(forward.SocketBuffer)
	packets, err := forward.NewPacketConn(socket)
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
		f.write([]forward.Outgoing{{Head: f.header, Data: payload}})
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
func (f *flow) hear(packets *forward.Packets, records []wire.Record) {
	if !f.hearing.answering {
		f.flows.session.link.links.targets.reached(f.allocation, nil)
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
	f.flows.conn.QueueAll(records)
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
	f.flows.session.link.links.targets.reached(f.allocation, err)
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
func (f *flow) send(out []forward.Outgoing) {
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

func (f *flow) write(out []forward.Outgoing) {
	f.sent.Add(uint64(len(out)))
	if refused := f.packets.Write(out); refused > 0 {
		f.flows.counters().dropped[dropUnsendable].Add(uint64(refused))
	}
}
