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

// headed holds datagrams while a PROXY header is put in front of them.
var headed = sync.Pool{New: func() any { return new([wire.MaxDatagram]byte) }}

// flows are the UDP flows of one datagram data connection.
type flows struct {
	session *session
	conn    *forward.DatagramConn
	ctx     context.Context // Of the data connection: it is the flows' owner.
	work    sync.WaitGroup

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

	mu     sync.Mutex
	socket *net.UDPConn // nil while it is being opened.
	early  [][]byte     // Datagrams that came before that,
	waits  int          // and their bytes.
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
	f.work.Go(f.sweep)
	err := f.conn.Serve(ws, f.handle)
	cancel()
	f.work.Wait()
	return err
}

func (f *flows) handle(records []wire.Record) error {
	for i := range records {
		if err := f.handleOne(&records[i]); err != nil {
			return err
		}
	}
	return nil
}

func (f *flows) handleOne(r *wire.Record) error {
	if r.Kind == wire.RecordOpen {
		return f.start(r)
	}
	f.mu.Lock()
	flow := f.open[r.Flow]
	f.mu.Unlock()
	switch {
	case flow == nil: // It has ended.
		if r.Kind == wire.RecordDatagram {
			f.counters().drop(dropNoFlow)
		}
	case r.Kind == wire.RecordClose:
		flow.told.Store(true)
		flow.end()
	default:
		flow.send(r.Payload)
	}
	return nil
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
	if _, err := netip.ParseAddr(a.LocalHost); err == nil {
		// It takes no time, and no datagram has to wait. On failure run tries
		// again, and ends the flow.
		_, _ = flow.connect()
	}
	f.work.Go(flow.run)
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

// run opens the flow's socket, unless that is open, and passes on what the
// target sends until the flow ends.
func (f *flow) run() {
	defer f.flows.remove(f)
	defer f.end()
	f.mu.Lock()
	socket := f.socket
	f.mu.Unlock()
	if socket == nil {
		var err error
		if socket, err = f.connect(); err != nil {
			return
		}
	}
	defer func() { _ = socket.Close() }()
	stop := context.AfterFunc(f.ended, func() { _ = socket.Close() })
	defer stop()
	reader, err := forward.NewDatagramReader(socket)
	if err != nil {
		return
	}
	f.receive(reader)
}

// connect opens the flow's socket and sends what has waited for it.
func (f *flow) connect() (*net.UDPConn, error) {
	conn, err := f.flows.session.link.links.targets.connect(f.ended, f.allocation)
	if err != nil {
		return nil, err
	}
	socket, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("dial %s: got a %T", conn.RemoteAddr(), conn)
	}
	// As much as the system gives: a game may answer in bursts.
	_ = socket.SetReadBuffer(forward.SocketBuffer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.socket = socket
	for _, payload := range f.early {
		f.write(payload)
	}
	f.early = nil
	return socket, nil
}

// receive passes on what the target sends. A port that is closed, which the
// system reports by failing reads, ends no flow: the game may be restarting.
func (f *flow) receive(reader *forward.Reader) {
	targets := f.flows.session.link.links.targets
	var sent uint64
	answering := false // Known to be: it need not be noted for every datagram.
	for failed := 0; ; {
		b, err := reader.Next()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			targets.reached(f.allocation, err)
			answering = false
			if now := f.sent.Load(); now != sent {
				sent, failed = now, 0
			}
			if failed++; failed > deafErrors {
				return
			}
			continue
		}
		if !answering {
			targets.reached(f.allocation, nil)
			answering = true
		}
		f.touch()
		if len(b.Data) > wire.MaxDatagram {
			f.drop(dropTooLong)
		} else {
			f.flows.conn.Queue(wire.Record{Kind: wire.RecordDatagram, Flow: f.number, Payload: b.Data})
			f.flows.conn.Flush()
		}
		b.Release()
	}
}

func (f *flow) drop(why drop) { f.flows.counters().drop(why) }

// send passes a player's datagram to the target.
func (f *flow) send(payload []byte) {
	f.touch()
	if len(f.header)+len(payload) > wire.MaxDatagram {
		f.drop(dropTooLong)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.socket != nil {
		f.write(payload)
		return
	}
	if len(f.early) >= earlyDatagrams || f.waits+len(payload) > earlyBytes {
		f.drop(dropWaiting)
		return
	}
	f.early = append(f.early, append([]byte(nil), payload...))
	f.waits += len(payload)
}

// write writes one datagram.
func (f *flow) write(payload []byte) {
	if len(f.header) > 0 {
		b := headed.Get().(*[wire.MaxDatagram]byte)
		defer headed.Put(b)
		n := copy(b[:], f.header)
		payload = b[:n+copy(b[n:], payload)]
	}
	f.sent.Add(1)
	// The first failure may be about an earlier datagram, which the target's
	// machine refused; this one has not been sent by it.
	if _, err := f.socket.Write(payload); err != nil && !errors.Is(err, net.ErrClosed) {
		if _, err = f.socket.Write(payload); err != nil {
			f.drop(dropUnsendable)
		}
	}
}
