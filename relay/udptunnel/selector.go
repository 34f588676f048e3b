package udptunnel

import (
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Selector are the ways that a carrier's records can take to the other end: its path,
// while that is up, and its data connection. Either may be missing, come and go. A
// record that finds no way is dropped and counted. The methods may be called from
// any goroutine; none of them blocks.
type Selector struct {
	counters *DatagramCounters
	conn     atomic.Pointer[DataConn]
	path     atomic.Pointer[Path]
}

// NewSelector makes the ways of a carrier, without any. What is dropped is counted in
// counters.
func NewSelector(counters *DatagramCounters) *Selector { return &Selector{counters: counters} }

// Use has records sent on a data connection from now on, or, with nil, on none.
func (w *Selector) Use(conn *DataConn) { w.conn.Store(conn) }

// Leave undoes Use, unless another one is in use already.
func (w *Selector) Leave(conn *DataConn) { w.conn.CompareAndSwap(conn, nil) }

// UsePath has records sent on a path while that is up.
func (w *Selector) UsePath(p *Path) { w.path.Store(p) }

// Queue queues records that belong together for Flush, and reports whether it did.
func (w *Selector) Queue(records ...wire.Record) bool {
	conn := w.conn.Load()
	closes := records[0].Kind == wire.RecordClose
	// A close rather goes where it is sure to arrive.
	if p := w.path.Load(); p != nil && (!closes || conn == nil) {
		switch p.put(records) {
		case taken:
			return true
		case dropped:
			return false
		case elsewhere:
		}
	}
	if conn != nil {
		return conn.Queue(records...)
	}
	if !closes {
		w.counters.Late.Add(1)
	}
	return false
}

// QueueAll queues datagrams that have nothing to do with each other.
func (w *Selector) QueueAll(datagrams []wire.Record) {
	p, conn := w.path.Load(), w.conn.Load()
	switch {
	case p != nil && p.up.Load():
		p.putAll(datagrams, func(r *wire.Record) { w.queueOn(conn, r) })
	case conn != nil:
		conn.QueueAll(datagrams)
	default:
		w.counters.Late.Add(uint64(len(datagrams)))
	}
}

func (w *Selector) queueOn(conn *DataConn, r *wire.Record) {
	if conn == nil {
		w.counters.Late.Add(1)
		return
	}
	conn.Queue(*r)
}

// Flush sends what is queued.
func (w *Selector) Flush() {
	if p := w.path.Load(); p != nil {
		p.Flush()
	}
	if conn := w.conn.Load(); conn != nil {
		conn.Flush()
	}
}

// Send queues records that belong together and has them sent, by another goroutine
// where that takes a data connection. It reports whether it did.
func (w *Selector) Send(records ...wire.Record) bool {
	if !w.Queue(records...) {
		return false
	}
	if p := w.path.Load(); p != nil {
		p.Flush()
	}
	if conn := w.conn.Load(); conn != nil {
		conn.Send() // What is queued already.
	}
	return true
}
