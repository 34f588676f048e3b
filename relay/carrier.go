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
	return c.conn.Serve(ws, func(records []wire.Record) error {
		for i := range records {
			if err := c.handle(&records[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *carrier) handle(r *wire.Record) error {
	c.mu.RLock()
	f := c.flows[r.Flow]
	c.mu.RUnlock()
	if f == nil { // It has ended.
		if r.Kind == wire.RecordDatagram {
			c.server.counters.drop(dropNoFlow)
		}
		return nil
	}
	switch r.Kind {
	case wire.RecordDatagram:
		f.deliver(r.Payload)
	case wire.RecordClose:
		f.port.remove(f)
	case wire.RecordOpen:
		return wire.ErrMalformed // Only tunnel servers open flows.
	}
	return nil
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
