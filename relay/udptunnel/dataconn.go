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

// inlineLimit is the size of a batch, in bytes, up to which Flush writes it itself: a
// socket that is ready accepts it whole, see transport. For a larger one it is worth
// waking a goroutine.
const inlineLimit = 8 << 10

const (
	// WriteBufferSize is the write buffer, in bytes, that WebSockets of data
	// connections should have, so that most batches take one write.
	WriteBufferSize = 32 << 10

	// ReadBufferSize is the read buffer, in bytes, that WebSockets of data connections
	// should have. Each holds it while it lives: for frame headers and short messages.
	// Longer ones bypass it.
	ReadBufferSize = 1 << 10
)

// WriteBuffers is the pool that WebSockets with a WriteBufferSize share.
var WriteBuffers sync.Pool

// transport carries the batches of a DataConn to the other end, in order.
// One goroutine at a time calls write.
type transport interface {
	// ready reports whether write accepts a batch of up to inlineLimit bytes without
	// waiting for the other end.
	ready() bool
	// write sends a batch and may wait. It does not keep the batch.
	write(batch []byte) error
}

// DataConn is one end of a datagram data connection. Records may be sent before it
// has a WebSocket: they wait in its queue. Its methods may be called from any
// goroutine.
//
// One goroutine at a time writes what is queued: a caller of Flush, if no other
// writes and the socket accepts the batch at once, which saves waking a goroutine;
// otherwise a goroutine of Serve, the only one that waits for the socket.
type DataConn struct {
	limit    int
	counters *DatagramCounters
	wake     chan struct{} // Makes the goroutine of Serve write.
	closing  chan struct{}

	mu        sync.Mutex
	queue     []*[]byte // Batches; only the last one grows.
	queued    int       // Bytes in queue.
	writing   bool      // A goroutine writes, or is about to, until the queue is empty.
	closed    bool
	ws        *websocket.Conn
	transport transport
}

// batches holds the memory of batches that are being filled. They grow as needed:
// most hold a few datagrams.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// NewDataConn makes a datagram data connection that queues at most limit bytes; 0:
// [DefaultQueue]. One more batch, of up to wire.MaxBatch bytes, may be being written.
// Datagrams sent, received and dropped are counted in counters.
func NewDataConn(limit int, counters *DatagramCounters) *DataConn {
	if limit == 0 {
		limit = DefaultQueue
	}
	return &DataConn{limit: limit, counters: counters, wake: make(chan struct{}, 1), closing: make(chan struct{})}
}

// Send queues records that belong together and has a goroutine of Serve write them.
// It reports whether it queued them: a full queue takes none, which counts as one
// dropped datagram. It does not block. Close records are always taken: they are few
// and small, and losing one would leave the other end with a dead flow.
func (d *DataConn) Send(records ...wire.Record) bool {
	taken := d.Queue(records...)
	if taken {
		d.startWriting(false)
	}
	return taken
}

// Queue is like Send, for a caller that calls Flush afterwards: until then the records
// may not be written.
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

// QueueAll queues datagrams that are independent of each other. Those that do not fit
// into the queue are dropped and counted. The caller calls Flush afterwards.
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

// refusedLocked returns the counter of datagrams that are not taken now.
func (d *DataConn) refusedLocked() *atomic.Uint64 {
	if d.closed {
		return &d.counters.Late
	}
	return &d.counters.Overflowed
}

// Flush writes what is queued, by the calling goroutine if it need not wait for that.
// The caller should hold no lock that others need.
func (d *DataConn) Flush() { d.startWriting(true) }

// startWriting makes a goroutine write what is queued, unless one does already. With
// inline it may be the calling one.
func (d *DataConn) startWriting(inline bool) {
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
		// Records queued meanwhile go to the other goroutine: they must not wait for
		// the caller's next flush, nor keep the caller busy.
		if d.stopWriting() {
			return
		}
	}
	// This does not block: only the goroutine that is writing signals.
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

// take removes and returns the oldest batch, or nil if there is none or it is longer
// than limit.
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

// put writes a batch that was taken, and reports whether it succeeded. Otherwise the
// data connection ends.
func (d *DataConn) put(t transport, b *[]byte) bool {
	err := t.write(*b)
	*b = (*b)[:0]
	batches.Put(b)
	if err != nil {
		d.Close() // Ends the reader, which says why.
	}
	return err == nil
}

// stopWriting ends the calling goroutine's turn of writing if nothing is queued, and
// reports whether it did.
func (d *DataConn) stopWriting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) > 0 {
		return false
	}
	d.writing = false
	return true
}

// Close ends the data connection. It does not wait for Serve.
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
		writeClose(ws, websocket.CloseNormalClosure, "")
	}
	d.Close()
}

// Serve runs the data connection over ws until it ends, and returns why. It calls
// handle with the records that arrive, up to recordsAtOnce of one message at a time,
// from one goroutine. The records and their payloads are valid until handle returns.
// Serve may be called once.
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
		writeClose(ws, websocket.CloseProtocolError, "protocol error")
	}
	d.Close()
	writer.Wait()
	return err
}

// write writes what is queued whenever it is woken. Records that gather while a batch
// is being written leave together; none waits for others.
func (d *DataConn) write(t transport) {
	for {
		select {
		case <-d.wake:
		case <-d.closing:
			return
		}
		for idle := false; !idle; idle = d.stopWriting() {
			if b := d.take(wire.MaxBatch); b != nil && !d.put(t, b) {
				return
			}
		}
	}
}
