package relay

import (
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// refusalsPerTick is how many records of unknown flows are answered in a tick. A
// tunnel client that does not listen must not fill the queue.
const refusalsPerTick = 256

// carrier is a tunnel client's flows and the ways to it: a path, and a data
// connection, which exists before its WebSocket does: the first datagrams wait in
// its queue. It outlives both, and its link.
type carrier struct {
	server  *Server
	name    string
	ways    *udptunnel.Selector
	refused atomic.Int32
	heard   atomic.Bool // Records have come from the tunnel client.

	mu       sync.RWMutex
	conn     *udptunnel.DataConn // The one in use or to come.
	attached bool                // It has its WebSocket.
	used     bool                // There was one before.
	asked    time.Time           // When it was asked for.
	lost     time.Time           // When the one before was lost.
	path     *udptunnel.Path     // nil until the first WebSocket, or where packets are not taken.
	former   *udptunnel.Path     // Of keys that the tunnel client may have in place of path's; nil otherwise.
	ended    bool
	last     uint64 // The number given last.
	flows    map[uint64]*flow
	empty    time.Time // Since when there are no flows.
}

func newCarrier(s *Server, now time.Time) *carrier {
	c := &carrier{
		server: s,
		name:   rand.Text(),
		ways:   udptunnel.NewSelector(&s.counters.datagrams),
		asked:  now,
		flows:  map[uint64]*flow{},
	}
	c.conn = c.newConn()
	c.ways.Use(c.conn)
	return c
}

func (c *carrier) newConn() *udptunnel.DataConn {
	return udptunnel.NewDataConn(c.server.limits.DatagramQueue, &c.server.counters.datagrams)
}

// openPath makes a path of a TLS connection's keys, if the carrier has none yet whose
// keys the tunnel client is known to have. The first packet may arrive as soon as the
// client knows that it is connected.
func (c *carrier) openPath(keys seal.Keys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settlePath()
	if c.ended || c.attached || c.path != nil && (c.heard.Load() || c.path.Heard()) {
		return
	}
	var out outgoing
	p, err := c.server.packets.NewPath(udptunnel.PathOptions{
		Keys:      keys,
		Handle:    func(records []wire.Record) error { return c.handle(records, &out) },
		Fail:      func(error) { c.server.work.Go(c.end) }, // Its caller may hold what end waits for.
		Queue:     c.server.limits.DatagramQueue,
		Datagrams: &c.server.counters.datagrams,
	})
	if err != nil {
		return // By a chance of one in 2^64 per path: the data connection is enough.
	}
	if c.former != nil {
		c.former.Close()
	}
	// Nothing has ever come from the tunnel client: the data connection that the
	// former keys are of was lost before it knew, or before it was heard.
	c.former, c.path = c.path, p
	c.ways.UsePath(p)
}

// settlePath keeps of two paths the one whose keys the tunnel client has, once it has
// been heard on it. It is called with mu held.
func (c *carrier) settlePath() {
	switch {
	case c.former == nil || c.ended:
		return
	case c.former.Heard():
		c.path, c.former = c.former, c.path
		c.ways.UsePath(c.path)
	case !c.path.Heard():
		return
	}
	c.former.Close()
	c.former = nil
}

// attach returns the data connection for its WebSocket, or nil if it has one.
func (c *carrier) attach() *udptunnel.DataConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached || c.ended {
		return nil
	}
	c.attached = true
	c.ways.Use(c.conn)
	return c.conn
}

// fate is what the end of a data connection means to its carrier.
type fate int

const (
	over     fate = iota // The carrier has ended too.
	missing              // It goes on, and needs another data connection.
	replaced             // It has another one already, or will ask for one.
)

// serve runs a data connection until it ends, and says what follows and why it
// ended.
func (c *carrier) serve(conn *udptunnel.DataConn, ws *websocket.Conn) (fate, error) {
	var out outgoing
	err := conn.Serve(ws, func(records []wire.Record) error {
		for i := range records {
			if records[i].Kind.Sealed() {
				return wire.ErrMalformed
			}
		}
		return c.handle(records, &out)
	})
	if errors.Is(err, wire.ErrMalformed) || websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseProtocolError) {
		return over, err
	}
	if c.renew(conn, time.Now()) {
		return missing, err
	}
	return replaced, err
}

// renew puts another data connection in the place of one that was lost, for a
// WebSocket to come, and reports whether it did: it may have been replaced
// already. Until that comes, what finds no other way is dropped: it would only
// arrive old.
func (c *carrier) renew(lost *udptunnel.DataConn, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.conn != lost {
		return false
	}
	c.ways.Leave(lost)
	lost.Close()
	c.conn, c.attached, c.used = c.newConn(), false, true
	c.asked, c.lost = now, now
	return true
}

// adopt has a carrier go on under a new link.
func (c *carrier) adopt(now time.Time) {
	c.mu.RLock()
	conn := c.conn
	c.mu.RUnlock()
	c.renew(conn, now)
}

// outgoing are datagrams that came together, and the flows that they belong to;
// memory that is used again for the next ones.
type outgoing struct {
	flows   []*flow // One for each record, nil where it has ended or is done with.
	packets []udpsock.Outgoing
}

// handle acts on records that came together, by either way: each has an outgoing
// of its own. The datagrams among them that leave by one port leave together.
func (c *carrier) handle(records []wire.Record, out *outgoing) error {
	if !c.heard.Load() {
		c.heard.Store(true)
	}
	out.flows = out.flows[:0]
	c.mu.RLock()
	for i := range records {
		out.flows = append(out.flows, c.flows[records[i].Flow])
	}
	c.mu.RUnlock()
	for i, f := range out.flows {
		if f != nil {
			f.known.Store(true)
			continue
		}
		switch records[i].Kind {
		case wire.RecordDatagram:
			c.server.counters.drop(dropNoFlow)
			c.refuse(records[i].Flow)
		case wire.RecordOpened: // The close has overtaken the open.
			c.refuse(records[i].Flow)
		}
	}
	now := udptunnel.Ticks(time.Now())
	for i, f := range out.flows {
		switch kind := records[i].Kind; {
		case kind == wire.RecordOpen:
			return wire.ErrMalformed // Only tunnel servers open flows.
		case f == nil:
		case kind == wire.RecordDatagram:
			out.gather(f.port, i, records, now)
			f.port.deliver(out.packets)
			clear(out.packets) // The records' memory is borrowed.
		case kind == wire.RecordClose:
			f.port.remove(f)
		}
	}
	clear(out.flows) // Not to keep alive what ends meanwhile.
	return nil
}

// gather makes packets of the datagrams from the first-th record on that leave by
// a port. That leaves each flow's in their order.
func (o *outgoing) gather(port *datagramPort, first int, records []wire.Record, now int64) {
	o.packets = o.packets[:0]
	for i := first; i < len(records); i++ {
		f := o.flows[i]
		if f == nil || f.port != port || records[i].Kind != wire.RecordDatagram {
			continue
		}
		f.used.Store(now)
		if !f.back.Load() {
			f.back.Store(true)
		}
		o.packets = append(o.packets, udpsock.Outgoing{To: &f.to, Data: records[i].Payload})
		o.flows[i] = nil
	}
}

// refuse says that a flow has ended.
func (c *carrier) refuse(flow uint64) {
	if c.refused.Add(1) <= refusalsPerTick {
		c.ways.Send(wire.Record{Kind: wire.RecordClose, Flow: flow})
	}
}

// open gives a flow its number and queues its first datagram, for the caller to
// flush. It reports whether there was room for it, and counts the datagram
// otherwise.
func (c *carrier) open(f *flow, open wire.Record, payload []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		c.server.counters.drop(dropNoConnection)
		return false
	}
	number := c.last + 1
	open.Flow = number
	if !c.ways.Queue(open, wire.Record{Kind: wire.RecordDatagram, Flow: number, Payload: payload}) {
		return false
	}
	f.number, f.open = number, open
	c.last = number
	c.flows[number] = f
	return true
}

// close forgets a flow and tells the tunnel client.
func (c *carrier) close(f *flow) {
	c.mu.Lock()
	delete(c.flows, f.number)
	if len(c.flows) == 0 {
		c.empty = time.Now()
	}
	c.mu.Unlock()
	c.ways.Send(wire.Record{Kind: wire.RecordClose, Flow: f.number})
}

// carrierState is what should be done about a carrier.
type carrierState int

const (
	carrierFine    carrierState = iota
	carrierMissing              // Its data connection is to be asked for again.
	carrierIdle                 // It has had no flow for a while.
	carrierLost                 // Its data connection has not come.
)

// tend does what is due with time, and says what its link should do.
func (c *carrier) tend(now time.Time) carrierState {
	c.refused.Store(0)
	c.mu.Lock()
	c.settlePath()
	p := c.path
	c.mu.Unlock()
	if p != nil {
		p.Tick(now)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.attached && len(c.flows) == 0 && now.Sub(c.empty) > c.server.limits.WarmIdle:
		return carrierIdle
	case c.attached || now.Sub(c.asked) <= askExpiry:
		return carrierFine
	case !c.used, now.Sub(c.lost) > wire.CarrierGrace && (c.path == nil || !c.path.Up()):
		return carrierLost
	default:
		c.asked = now
		return carrierMissing
	}
}

// reachable reports whether packets arrive at the tunnel client.
func (c *carrier) reachable() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.path != nil && c.path.Up()
}

// retire closes the data connection with a close frame, which says that the
// carrier is over.
func (c *carrier) retire() {
	c.mu.RLock()
	conn := c.conn
	c.mu.RUnlock()
	conn.Retire()
}

// end closes the ways and the flows. It does not wait.
func (c *carrier) end() {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	flows := make([]*flow, 0, len(c.flows))
	for _, f := range c.flows {
		flows = append(flows, f)
	}
	conn, paths := c.conn, []*udptunnel.Path{c.path, c.former}
	c.mu.Unlock()
	conn.Close()
	for _, p := range paths {
		if p != nil {
			p.Close()
		}
	}
	for _, f := range flows {
		f.port.remove(f)
	}
}
