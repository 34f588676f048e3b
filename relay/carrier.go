package relay

import (
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/forward"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// carrier is a link's datagram data connection and the flows on it. It exists
// before its WebSocket does: the first datagrams wait in its queue.
type carrier struct {
	server *Server
	conn   *forward.DatagramConn
	made   time.Time

	mu       sync.RWMutex
	attached bool
	ended    bool
	last     uint64 // The number given last.
	flows    map[uint64]*flow
	empty    time.Time // Since when there are no flows.
}

func newCarrier(s *Server, now time.Time) *carrier {
	return &carrier{
		server: s,
		conn:   forward.NewDatagramConn(s.limits.DatagramQueue, &s.counters.datagrams),
		made:   now,
		flows:  map[uint64]*flow{},
	}
}

// attach reports whether the caller may serve the carrier: only the first may.
func (c *carrier) attach() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached || c.ended {
		return false
	}
	c.attached = true
	return true
}

// serve runs the data connection until it ends.
func (c *carrier) serve(ws *websocket.Conn) error {
	var out outgoing
	return c.conn.Serve(ws, func(records []wire.Record) error { return c.handle(records, &out) })
}

// outgoing are datagrams that came together, and the flows that they belong to;
// memory that is used again for the next ones.
type outgoing struct {
	flows   []*flow // One for each record, nil where it has ended or is done with.
	packets []forward.Outgoing
}

// handle acts on records that came together. The datagrams among them that leave
// by one port leave together.
func (c *carrier) handle(records []wire.Record, out *outgoing) error {
	out.flows = out.flows[:0]
	c.mu.RLock()
	for i := range records {
		f := c.flows[records[i].Flow]
		if f == nil && records[i].Kind == wire.RecordDatagram {
			c.server.counters.drop(dropNoFlow)
		}
		out.flows = append(out.flows, f)
	}
	c.mu.RUnlock()
	now := time.Now().UnixNano()
	for i, f := range out.flows {
		switch {
		case f == nil:
		case records[i].Kind == wire.RecordDatagram:
			out.gather(f.port, i, records, now)
			f.port.deliver(out.packets)
			clear(out.packets) // The records' memory is borrowed.
		case records[i].Kind == wire.RecordClose:
			f.port.remove(f)
		default:
			return wire.ErrMalformed // Only tunnel servers open flows.
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
		o.packets = append(o.packets, forward.Outgoing{To: &f.to, Data: records[i].Payload})
		o.flows[i] = nil
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
	if !c.conn.Queue(open, wire.Record{Kind: wire.RecordDatagram, Flow: number, Payload: payload}) {
		return false
	}
	f.number = number
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
	c.conn.Send(wire.Record{Kind: wire.RecordClose, Flow: f.number})
}

// useless reports whether the carrier should be dropped: its data connection
// has not come, or has had no flow for a while.
func (c *carrier) useless(now time.Time) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.attached {
		return now.Sub(c.made) > askExpiry
	}
	return len(c.flows) == 0 && now.Sub(c.empty) > c.server.limits.WarmIdle
}

// end closes the data connection and its flows. It does not wait.
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
	c.mu.Unlock()
	c.conn.Close()
	for _, f := range flows {
		f.port.remove(f)
	}
}
