package udptunnel

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Selector chooses the transport of each record of a UDP session: the sealed path,
// while that is up, or the data connection. Either may be missing at times. A record
// that finds no transport is dropped and counted. The methods may be called from any
// goroutine and do not block.
type Selector struct {
	counters *DatagramCounters
	conn     atomic.Pointer[DataConn]
	path     atomic.Pointer[Path]
}

// NewSelector makes a Selector without transports. Dropped datagrams are counted in
// counters.
func NewSelector(counters *DatagramCounters) *Selector { return &Selector{counters: counters} }

// Use sets the data connection; nil: there is none.
func (s *Selector) Use(conn *DataConn) { s.conn.Store(conn) }

// Leave undoes Use, unless another data connection has been set since.
func (s *Selector) Leave(conn *DataConn) { s.conn.CompareAndSwap(conn, nil) }

// UsePath sets the sealed path, which is used while it is up.
func (s *Selector) UsePath(p *Path) { s.path.Store(p) }

// Queue queues records that belong together, for Flush, and reports whether it did.
func (s *Selector) Queue(records ...wire.Record) bool {
	conn := s.conn.Load()
	closes := records[0].Kind == wire.RecordClose
	// A close record takes the data connection, where it is sure to arrive.
	if p := s.path.Load(); p != nil && (!closes || conn == nil) {
		switch p.put(records) {
		case taken:
			return true
		case dropped:
			return false
		case unfit:
		}
	}
	if conn != nil {
		return conn.Queue(records...)
	}
	if !closes {
		s.counters.Late.Add(1)
	}
	return false
}

// QueueAll queues datagrams that are independent of each other.
func (s *Selector) QueueAll(datagrams []wire.Record) {
	p, conn := s.path.Load(), s.conn.Load()
	switch {
	case p != nil && p.up.Load():
		p.putAll(datagrams, func(r *wire.Record) { s.queueOn(conn, r) })
	case conn != nil:
		conn.QueueAll(datagrams)
	default:
		s.counters.Late.Add(uint64(len(datagrams)))
	}
}

func (s *Selector) queueOn(conn *DataConn, r *wire.Record) {
	if conn == nil {
		s.counters.Late.Add(1)
		return
	}
	conn.Queue(*r)
}

// Flush sends what is queued.
func (s *Selector) Flush() {
	if p := s.path.Load(); p != nil {
		p.Flush()
	}
	if conn := s.conn.Load(); conn != nil {
		conn.Flush()
	}
}

// Send queues records that belong together and sends them; on a data connection
// another goroutine writes them. It reports whether they were queued.
func (s *Selector) Send(records ...wire.Record) bool {
	if !s.Queue(records...) {
		return false
	}
	if p := s.path.Load(); p != nil {
		p.Flush()
	}
	if conn := s.conn.Load(); conn != nil {
		conn.Send() // What is queued already.
	}
	return true
}
