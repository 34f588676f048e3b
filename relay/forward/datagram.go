package forward

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// DefaultQueue is how many bytes of datagrams wait for a data connection before
// further ones are dropped: a few times a UDP socket's own buffer. More would
// only make what arrives older.
const DefaultQueue = 512 << 10

// DatagramConn is one end of a datagram data connection. Records may be sent
// before it has a WebSocket: they wait in its queue. Send may be called from
// any goroutine.
type DatagramConn struct {
	limit    int
	counters *DatagramCounters
	wake     chan struct{} // Holds one signal that the queue is no longer empty.
	closing  chan struct{}

	mu     sync.Mutex
	queue  []*[]byte // Batches; only the last one grows.
	queued int       // Bytes in queue.
	closed bool
	ws     *websocket.Conn
}

// batches holds the memory of batches being filled. They grow to what is
// needed: most are a few datagrams long.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// NewDatagramConn makes a datagram data connection that queues at most limit
// bytes; 0 means DefaultQueue. Another wire.MaxBatch is being written at most.
// What it moves and what it has to drop is counted in counters.
func NewDatagramConn(limit int, counters *DatagramCounters) *DatagramConn {
	if limit == 0 {
		limit = DefaultQueue
	}
	return &DatagramConn{limit: limit, counters: counters, wake: make(chan struct{}, 1), closing: make(chan struct{})}
}

// Send queues records that belong together, and reports whether it did: a full
// queue takes none of them, which counts as one datagram dropped. It never
// blocks. Close records are always taken, being few and small: losing one
// would leave the other end with a flow for good.
func (d *DatagramConn) Send(records ...wire.Record) bool {
	size, payload, droppable := 0, 0, false
	for _, r := range records {
		size += wire.RecordSize(len(r.Payload))
		payload += len(r.Payload)
		droppable = droppable || r.Kind != wire.RecordClose
	}
	d.mu.Lock()
	if d.closed || (droppable && d.queued+size > d.limit) {
		cause := &d.counters.Overflowed
		if d.closed {
			cause = &d.counters.Late
		}
		d.mu.Unlock()
		if droppable {
			cause.Add(1)
		}
		return false
	}
	first := len(d.queue) == 0
	for _, r := range records {
		d.append(r)
	}
	d.mu.Unlock()
	if droppable {
		d.counters.Sent.Add(1)
		d.counters.SentBytes.Add(uint64(payload))
	}
	if first {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (d *DatagramConn) append(r wire.Record) {
	if n := len(d.queue); n == 0 || len(*d.queue[n-1]) >= wire.BatchTarget {
		d.queue = append(d.queue, batches.Get().(*[]byte))
	}
	last := d.queue[len(d.queue)-1]
	before := len(*last)
	*last = wire.AppendRecord(*last, r)
	d.queued += len(*last) - before
}

// take returns the oldest batch, or nil.
func (d *DatagramConn) take() *[]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return nil
	}
	b := d.queue[0]
	copy(d.queue, d.queue[1:])
	d.queue[len(d.queue)-1] = nil
	d.queue = d.queue[:len(d.queue)-1]
	d.queued -= len(*b)
	return b
}

// Close ends the data connection. It does not wait: Serve does.
func (d *DatagramConn) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.closing)
	if d.ws != nil {
		closeNow(d.ws)
	}
}

// Retire closes the data connection with a close frame.
func (d *DatagramConn) Retire() {
	d.mu.Lock()
	ws := d.ws
	d.mu.Unlock()
	if ws != nil {
		sayClose(ws, websocket.CloseNormalClosure, "")
	}
	d.Close()
}

// Serve runs the data connection over ws until it ends, and returns why. It
// calls handle for every record that arrives, from one goroutine; the record's
// payload is valid until handle returns. It may be called once.
func (d *DatagramConn) Serve(ws *websocket.Conn, handle func(wire.Record) error) error {
	ws.SetReadLimit(wire.MaxBatch)
	d.mu.Lock()
	d.ws = ws
	closed := d.closed
	d.mu.Unlock()
	if closed {
		closeNow(ws)
	}
	var writer sync.WaitGroup
	writer.Go(func() { d.write(ws) })
	err := d.read(ws, handle)
	if errors.Is(err, wire.ErrMalformed) {
		sayClose(ws, websocket.CloseProtocolError, "protocol error")
	}
	d.Close()
	writer.Wait()
	return err
}

// write sends what is queued: everything that has gathered while the last
// message was written goes together, and nothing waits for company.
func (d *DatagramConn) write(ws *websocket.Conn) {
	for {
		select {
		case <-d.wake:
		case <-d.closing:
			return
		}
		for b := d.take(); b != nil; b = d.take() {
			err := ws.WriteMessage(websocket.BinaryMessage, *b)
			*b = (*b)[:0]
			batches.Put(b)
			if err != nil {
				d.Close() // Ends the reader, which says why.
				return
			}
		}
	}
}

func (d *DatagramConn) read(ws *websocket.Conn, handle func(wire.Record) error) error {
	for {
		kind, r, err := ws.NextReader()
		if err != nil {
			return err
		}
		if kind != websocket.BinaryMessage {
			return fmt.Errorf("%w: text on a datagram data connection", wire.ErrMalformed)
		}
		if err := d.readBatch(r, handle); err != nil {
			return err
		}
	}
}

func (d *DatagramConn) readBatch(r io.Reader, handle func(wire.Record) error) error {
	b := borrow(batchBuffers)
	defer b.Release()
	rest, err := readMessage(r, b.whole)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return fmt.Errorf("%w: empty batch", wire.ErrMalformed)
	}
	for len(rest) > 0 {
		var record wire.Record
		if record, rest, err = wire.NextRecord(rest); err != nil {
			return err
		}
		if record.Kind == wire.RecordDatagram {
			d.counters.Received.Add(1)
			d.counters.ReceivedBytes.Add(uint64(len(record.Payload)))
		}
		if err := handle(record); err != nil {
			return err
		}
	}
	return nil
}

func sayClose(ws *websocket.Conn, code int, text string) {
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}
