package udptunnel

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// DefaultQueue is how many bytes of datagrams wait for a data connection before
// further ones are dropped: a few times a UDP socket's own buffer. More would
// only make what arrives older.
const DefaultQueue = 512 << 10

// inlineLimit is the size of a batch, in bytes, up to which Flush writes it
// itself. A socket that is ready takes it whole, see ready; a larger one is
// worth a goroutine's waking.
const inlineLimit = 8 << 10

const (
	// WriteBufferSize is the size in bytes that WebSockets of data connections
	// should be given for writing, so that most batches take one write.
	WriteBufferSize = 32 << 10

	// ReadBufferSize is the size in bytes that WebSockets of data connections
	// should be given for reading, which each of them holds for good: headers of
	// frames and short messages. What is longer is read past it.
	ReadBufferSize = 1 << 10
)

// WriteBuffers is the pool that WebSockets with a WriteBufferSize share.
var WriteBuffers sync.Pool

// transport carries the batches of a DataConn to the other end, in order.
// One goroutine at a time calls write.
type transport interface {
	// ready reports whether write certainly takes a batch of up to inlineLimit
	// bytes without waiting for the other end.
	ready() bool
	// write sends a batch and may wait. The batch is the caller's again after it.
	write(batch []byte) error
}

// DataConn is one end of a datagram data connection. Records may be sent
// before it has a WebSocket: they wait in its queue. Send, Add and Flush may be
// called from any goroutine.
//
// What is queued is written by one goroutine at a time: by one that calls Flush
// while nobody writes and the socket has room, which spares a hand-over and a
// wake-up, otherwise by one of its own, which alone ever waits for the socket.
type DataConn struct {
	limit    int
	counters *DatagramCounters
	wake     chan struct{} // Hands writing over to the goroutine in Serve.
	closing  chan struct{}

	mu        sync.Mutex
	queue     []*[]byte // Batches; only the last one grows.
	queued    int       // Bytes in queue.
	writing   bool      // Somebody writes, or is about to, until the queue is empty.
	closed    bool
	ws        *websocket.Conn
	transport transport
}

// batches holds the memory of batches being filled. They grow to what is
// needed: most are a few datagrams long.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// NewDataConn makes a datagram data connection that queues at most limit
// bytes; 0 means DefaultQueue. Another wire.MaxBatch is being written at most.
// What it moves and what it has to drop is counted in counters.
func NewDataConn(limit int, counters *DatagramCounters) *DataConn {
	if limit == 0 {
		limit = DefaultQueue
	}
	return &DataConn{limit: limit, counters: counters, wake: make(chan struct{}, 1), closing: make(chan struct{})}
}

// Send queues records that belong together, and reports whether it did: a full
// queue takes none of them, which counts as one datagram dropped. It never
// blocks, nor does it write. Close records are always taken, being few and
// small: losing one would leave the other end with a flow for good.
func (d *DataConn) Send(records ...wire.Record) bool {
	taken := d.Queue(records...)
	if taken {
		d.pass(false)
	}
	return taken
}

// Queue is Send for a caller that will call Flush: until then, what is queued
// may stay so.
func (d *DataConn) Queue(records ...wire.Record) bool {
	size, payload, droppable := 0, 0, false
	for i := range records {
		size += wire.RecordSize(len(records[i].Payload))
		payload += len(records[i].Payload)
		droppable = droppable || records[i].Kind != wire.RecordClose
	}
	d.mu.Lock()
	if d.closed || (droppable && d.queued+size > d.limit) {
		cause := d.refusedLocked()
		d.mu.Unlock()
		if droppable {
			cause.Add(1)
		}
		return false
	}
	for i := range records {
		d.append(&records[i])
	}
	d.mu.Unlock()
	if droppable {
		d.counters.Sent.Add(1)
		d.counters.SentBytes.Add(uint64(payload))
	}
	return true
}

// QueueAll queues datagrams that have nothing to do with each other: each that
// finds no room is dropped and counted. The caller is to call Flush.
func (d *DataConn) QueueAll(datagrams []wire.Record) {
	sent, payload := 0, 0
	d.mu.Lock()
	for i := range datagrams {
		n := len(datagrams[i].Payload)
		if d.closed || d.queued+wire.RecordSize(n) > d.limit {
			continue
		}
		d.append(&datagrams[i])
		sent++
		payload += n
	}
	cause := d.refusedLocked()
	d.mu.Unlock()
	d.counters.Sent.Add(uint64(sent))
	d.counters.SentBytes.Add(uint64(payload))
	if refused := len(datagrams) - sent; refused > 0 {
		cause.Add(uint64(refused))
	}
}

// refusedLocked is what counts datagrams that are not taken now.
func (d *DataConn) refusedLocked() *atomic.Uint64 {
	if d.closed {
		return &d.counters.Late
	}
	return &d.counters.Overflowed
}

// Flush has what is queued written, at once and by the caller where that takes
// no waiting. The caller should hold no lock that others need.
func (d *DataConn) Flush() { d.pass(true) }

// pass has somebody write what is queued, unless somebody does already. With
// inline that may be the caller.
func (d *DataConn) pass(inline bool) {
	d.mu.Lock()
	if d.writing || d.closed || len(d.queue) == 0 {
		d.mu.Unlock()
		return
	}
	d.writing = true
	t := d.transport
	inline = inline && t != nil && len(d.queue) == 1 && len(*d.queue[0]) <= inlineLimit
	d.mu.Unlock()
	if inline && t.ready() {
		if b := d.take(inlineLimit); b != nil && !d.put(t, b) {
			return
		}
		// Whoever has come meanwhile is not made to wait for the caller's next
		// turn, nor the caller captured by them.
		if d.rest() {
			return
		}
	}
	// There is room for the signal: only who writes gives one.
	d.wake <- struct{}{}
}

func (d *DataConn) append(r *wire.Record) {
	if n := len(d.queue); n == 0 || len(*d.queue[n-1]) >= wire.BatchTarget {
		d.queue = append(d.queue, batches.Get().(*[]byte))
	}
	last := d.queue[len(d.queue)-1]
	before := len(*last)
	*last = wire.AppendRecord(*last, *r)
	d.queued += len(*last) - before
}

// take returns the oldest batch, or nil if there is none or it is longer than
// limit.
func (d *DataConn) take(limit int) *[]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 || len(*d.queue[0]) > limit {
		return nil
	}
	b := d.queue[0]
	copy(d.queue, d.queue[1:])
	d.queue[len(d.queue)-1] = nil
	d.queue = d.queue[:len(d.queue)-1]
	d.queued -= len(*b)
	return b
}

// put writes a batch that was taken, and reports whether the data connection
// goes on.
func (d *DataConn) put(t transport, b *[]byte) bool {
	err := t.write(*b)
	*b = (*b)[:0]
	batches.Put(b)
	if err != nil {
		d.Close() // Ends the reader, which says why.
	}
	return err == nil
}

// rest ends the caller's turn of writing if nothing is queued, and reports
// whether that is so.
func (d *DataConn) rest() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) > 0 {
		return false
	}
	d.writing = false
	return true
}

// Close ends the data connection. It does not wait: Serve does.
func (d *DataConn) Close() {
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
func (d *DataConn) Retire() {
	d.mu.Lock()
	ws := d.ws
	d.mu.Unlock()
	if ws != nil {
		sayClose(ws, websocket.CloseNormalClosure, "")
	}
	d.Close()
}

// Serve runs the data connection over ws until it ends, and returns why. It
// calls handle with the records that arrive, those of one message together as
// far as recordsAtOnce goes, from one goroutine; the records and their payloads
// are valid until handle returns. It may be called once.
func (d *DataConn) Serve(ws *websocket.Conn, handle func([]wire.Record) error) error {
	ws.SetReadLimit(wire.MaxBatch)
	t := newMessages(ws)
	d.mu.Lock()
	d.ws, d.transport = ws, t
	closed := d.closed
	d.mu.Unlock()
	if closed {
		closeNow(ws)
	}
	var writer sync.WaitGroup
	writer.Go(func() { d.write(t) })
	err := d.read(ws, handle)
	if errors.Is(err, wire.ErrMalformed) {
		sayClose(ws, websocket.CloseProtocolError, "protocol error")
	}
	d.Close()
	writer.Wait()
	return err
}

// write sends what is queued whenever it is handed that: everything that has
// gathered while the last batch was written goes together, and nothing waits for
// company.
func (d *DataConn) write(t transport) {
	for {
		select {
		case <-d.wake:
		case <-d.closing:
			return
		}
		for idle := false; !idle; idle = d.rest() {
			if b := d.take(wire.MaxBatch); b != nil && !d.put(t, b) {
				return
			}
		}
	}
}
