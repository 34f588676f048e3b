package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// refusalsPerTick is how many records of unknown flows are answered in a
	// second.
	refusalsPerTick = 256
	// memoryTicks is for how many seconds, and up to twice as many, it is
	// remembered that a flow has ended: a packet of it may still be on its way.
	memoryTicks = 10
)

// flows are the UDP flows of one carrier and the ways to the tunnel server. They
// outlive data connections and links: a change of this machine's address takes
// those, and no player.
type flows struct {
	link *link
	name string
	ways *udptunnel.Selector
	ctx  context.Context // It is the flows' owner.
	end  context.CancelFunc
	work sync.WaitGroup
	ears ears

	mu       sync.Mutex
	over     bool // No further work.
	conn     *udptunnel.DataConn
	lost     time.Time // When the last data connection was; while there is none.
	path     *udptunnel.Path
	open     map[uint64]*flow
	counts   map[int64]int       // Flows of each allocation.
	gone     map[uint64]struct{} // Numbers of flows that have ended of late,
	longGone map[uint64]struct{} // and before that.
	refused  int                 // Records of unknown flows answered since the last tick.
}

// carrierName is the name of the link's carrier, or "".
func (l *link) carrierName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.carrier == nil || l.carrier.ctx.Err() != nil {
		return ""
	}
	return l.carrier.name
}

// dropCarrierBut ends the link's carrier unless it has that name.
func (l *link) dropCarrierBut(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.carrier != nil && l.carrier.name != name {
		l.carrier.end()
		l.carrier = nil
	}
}

// carrierNamed returns the link's carrier of that name, a new one if there is none.
func (l *link) carrierNamed(ctx context.Context, name string) *flows {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.carrier; c != nil && c.name == name && c.ctx.Err() == nil {
		return c
	}
	if l.carrier != nil {
		l.carrier.end()
	}
	l.carrier = newFlows(ctx, l, name)
	return l.carrier
}

func newFlows(ctx context.Context, l *link, name string) *flows {
	f := &flows{
		link:   l,
		name:   name,
		ways:   udptunnel.NewSelector(&l.links.counters.datagrams),
		lost:   time.Now(),
		open:   map[uint64]*flow{},
		counts: map[int64]int{},
		gone:   map[uint64]struct{}{},
	}
	f.ctx, f.end = context.WithCancel(ctx)
	hears := f.ears.open(f)
	if hears != nil {
		l.log.Error("no flows can be taken", slog.Any("error", hears))
		f.end()
	}
	f.work.Go(f.sweep)
	l.carriers.Go(func() {
		<-f.ctx.Done()
		f.mu.Lock()
		f.over = true
		conn, p := f.conn, f.path
		f.mu.Unlock()
		if conn != nil {
			conn.Close()
		}
		if p != nil {
			p.Close()
		}
		if hears == nil {
			f.ears.close()
		}
		f.work.Wait()
	})
	return f
}

// serveDatagrams serves a data connection of a carrier until it or ctx ends. Port
// is where the tunnel server takes packets, or 0.
func (s *session) serveDatagrams(ctx context.Context, ws *websocket.Conn, carrier string, port uint16) error {
	f := s.link.carrierNamed(s.life, carrier)
	l := s.link.links
	conn := udptunnel.NewDataConn(l.opts.Limits.DatagramQueue, &l.counters.datagrams)
	if !f.attach(conn) {
		return ws.Close()
	}
	defer f.work.Done()
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()
	if port != 0 {
		f.openPath(ws, port)
	}
	var g gathered
	err := conn.Serve(ws, func(records []wire.Record) error {
		for i := range records {
			if records[i].Kind.Sealed() {
				return wire.ErrMalformed
			}
		}
		return f.handle(records, &g)
	})
	f.detach(conn)
	if errors.Is(err, wire.ErrMalformed) || websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseProtocolError) {
		f.end()
	}
	return err
}

// attach has a data connection used in place of the one before, and reports
// whether it did. It counts as work until the caller says that it is done.
func (f *flows) attach(conn *udptunnel.DataConn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	f.work.Add(1)
	if f.conn != nil {
		f.conn.Close()
	}
	f.conn = conn
	f.ways.Use(conn)
	return true
}

func (f *flows) detach(conn *udptunnel.DataConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ways.Leave(conn)
	if f.conn == conn {
		f.conn, f.lost = nil, time.Now()
	}
}

// openPath sends packets to where the tunnel server takes them, with keys of the
// carrier's first data connection.
func (f *flows) openPath(ws *websocket.Conn, port uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path != nil || f.over {
		return
	}
	p, err := f.dialPath(ws, port)
	if err != nil {
		f.link.log.Debug("no packets to the tunnel server", slog.Any("error", err))
		return
	}
	f.path = p
	f.ways.UsePath(p)
	f.work.Go(p.Serve)
	p.Tick(time.Now())
}

func (f *flows) dialPath(ws *websocket.Conn, port uint16) (*udptunnel.Path, error) {
	encrypted, ok := ws.NetConn().(interface{ ConnectionState() tls.ConnectionState })
	server, tcp := udptunnel.ServerAddress(ws.RemoteAddr(), port)
	if !ok || !tcp {
		return nil, errors.New("the data connection is not TLS over TCP")
	}
	state := encrypted.ConnectionState()
	keys, err := seal.Export(&state)
	if err != nil {
		return nil, err
	}
	l := f.link.links
	var g gathered
	return udptunnel.DialPath(f.ctx, server, udptunnel.PathOptions{
		Keys:   keys,
		Handle: func(records []wire.Record) error { return f.handle(records, &g) },
		Fail: func(err error) {
			f.link.log.Warn("the tunnel server's packets make no sense", slog.Any("error", err))
			f.end()
		},
		Queue:     l.opts.Limits.DatagramQueue,
		Datagrams: &l.counters.datagrams,
	}, &l.counters.paths)
}

// mayRefuseLocked reports whether one more record may be answered with close: a
// tunnel server that does not listen must not fill the queue.
func (f *flows) mayRefuseLocked() bool {
	f.refused++
	return f.refused <= refusalsPerTick
}

// refuseLate answers a datagram of a flow that is not known, or not any more.
func (f *flows) refuseLate(flow uint64) {
	f.mu.Lock()
	may := f.mayRefuseLocked()
	f.mu.Unlock()
	if may {
		f.refuse(flow)
	}
}

func (f *flows) refuse(flow uint64) {
	f.ways.Send(wire.Record{Kind: wire.RecordClose, Flow: flow})
}

// start opens a flow, unless it is open already, and says so. One that may not be
// opened is closed again.
func (f *flows) start(r *wire.Record) {
	f.mu.Lock()
	known := f.open[r.Flow] != nil
	_, ended := f.gone[r.Flow]
	if _, long := f.longGone[r.Flow]; long {
		ended = true
	}
	f.mu.Unlock()
	if !known && !ended {
		known = f.begin(r)
	}
	if known {
		f.ways.Send(wire.Record{Kind: wire.RecordOpened, Flow: r.Flow})
	} else {
		f.refuseLate(r.Flow)
	}
}

// begin opens a flow, and reports whether it is open.
func (f *flows) begin(r *wire.Record) bool {
	targets := f.link.links.targets
	a, err := targets.find(f.link.server, r.Allocation, types.ProtocolUDP)
	var header []byte
	if err == nil {
		header, err = proxyHeader(a, r.Source, r.Destination)
	}
	if err != nil {
		f.link.log.Debug("flow refused", slog.Int64("allocationId", r.Allocation), slog.Any("reason", err))
		return false
	}
	flow := &flow{
		flows: f, number: r.Flow, allocation: a, header: header,
		idle: time.Duration(r.IdleSeconds)*time.Second + idleMargin,
	}
	flow.ended, flow.end = context.WithCancel(f.ctx)
	flow.touch()
	f.mu.Lock()
	if f.open[r.Flow] != nil { // Come by the other way at the same time.
		f.mu.Unlock()
		flow.end()
		return true
	}
	if f.over || f.counts[a.ID] >= f.link.links.opts.Limits.Flows {
		f.mu.Unlock()
		flow.end()
		return false
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
	return true
}

func (f *flows) counters() *counters { return &f.link.links.counters }

func (f *flows) remove(flow *flow) {
	f.mu.Lock()
	delete(f.open, flow.number)
	f.gone[flow.number] = struct{}{}
	f.counters().flows.Add(-1)
	if f.counts[flow.allocation.ID]--; f.counts[flow.allocation.ID] == 0 {
		delete(f.counts, flow.allocation.ID)
	}
	f.mu.Unlock()
	if !flow.told.Load() {
		f.refuse(flow.number)
	}
}

// sweep does what is due with time.
func (f *flows) sweep() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for tick := 1; ; tick++ {
		select {
		case <-f.ctx.Done():
			return
		case now := <-ticker.C:
			f.tend(now, tick%memoryTicks == 0)
		}
	}
}

// tend ends the flows on which both directions have been silent, and the carrier
// once it has had no way for too long.
func (f *flows) tend(now time.Time, forget bool) {
	ticks := udptunnel.Ticks(now)
	f.mu.Lock()
	for _, flow := range f.open {
		if ticks-flow.used.Load() > int64(flow.idle) {
			flow.end()
		}
	}
	if forget {
		f.gone, f.longGone = map[uint64]struct{}{}, f.gone
	}
	f.refused = 0
	p := f.path
	lost := f.conn == nil && now.Sub(f.lost) > wire.CarrierGrace
	f.mu.Unlock()
	if p != nil {
		p.Tick(now)
	}
	if lost && (p == nil || !p.Up()) {
		f.end()
	}
}
