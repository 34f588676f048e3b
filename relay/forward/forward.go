// Package forward moves players' traffic between sockets and data connections:
// the bytes of TCP connections over a [StreamConn], datagrams over a
// [DatagramConn]. Both ends of the tunnel use it; what differs between them is
// who opens a stream or a flow.
//
// Memory: nothing is held for a connection on which nothing happens but its
// goroutines' stacks and what TLS and the WebSocket keep. Buffers are borrowed
// when there is something to read and returned once it is written.
package forward

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// A message of a stream is what one read of its TCP connection yields, at most
	// largeChunk once smallChunk was filled: who says little at a time shall not
	// have memory for much. With the longest header of a WebSocket frame either
	// fills whole TLS records and does not spill into another.
	smallChunk = 16<<10 - wire.MaxFrameHeader
	largeChunk = 128<<10 - wire.MaxFrameHeader
	// receiveChunk is how much of a stream's messages is read at once.
	receiveChunk = 64 << 10
	// gatherChunk is how much of a message leaves in one system call: TLS makes
	// one for each record of 16 kB.
	gatherChunk = 64 << 10

	// datagramChunk takes any datagram, and shows which ones are too long.
	datagramChunk = 64 << 10

	// SocketBuffer is how many bytes of datagrams UDP sockets should be asked to
	// hold: a burst is lost where it finds no room. The system may give less.
	SocketBuffer = 4 << 20

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

var (
	smallBuffers   = bufferPool(wire.MaxFrameHeader, smallChunk)
	largeBuffers   = bufferPool(wire.MaxFrameHeader, largeChunk)
	receiveBuffers = bufferPool(0, receiveChunk)
	gatherBuffers  = bufferPool(0, gatherChunk)
	batchBuffers   = bufferPool(0, wire.MaxBatch)
)

// began is when Ticks count from.
var began = time.Now()

// Ticks is a time of this process as a number, in nanoseconds from an arbitrary
// moment on. Unlike t.UnixNano it makes no jump where somebody sets the clock, by
// which every silence would seem over, or none.
func Ticks(t time.Time) int64 { return int64(t.Sub(began)) }

// Buffer is borrowed memory. Its holder releases it when done with Data.
type Buffer struct {
	Data []byte // What was read.

	whole []byte // All of it,
	room  []byte // and without what precedes what is read.
	pool  *sync.Pool
}

// Release gives the buffer back. Data must not be used after it.
func (b *Buffer) Release() {
	b.Data = nil
	b.pool.Put(b)
}

// bufferPool makes a pool of buffers with room for size bytes, and for some more
// in front of them.
func bufferPool(front, size int) *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any {
		whole := make([]byte, front+size)
		return &Buffer{whole: whole, room: whole[front:], pool: pool}
	}
	return pool
}

func borrow(pool *sync.Pool) *Buffer { return pool.Get().(*Buffer) }

// readMessage reads a whole WebSocket message into b; one that does not fit is
// malformed.
func readMessage(r io.Reader, b []byte) ([]byte, error) {
	n := 0
	for {
		if n == len(b) {
			if m, _ := r.Read(make([]byte, 1)); m > 0 {
				return nil, fmt.Errorf("%w: message over %d bytes", wire.ErrMalformed, len(b))
			}
			return b, nil
		}
		m, err := r.Read(b[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return b[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// socket is what a Reader reads.
type socket interface {
	io.Reader
	syscall.Conn
}

// pools are where a Reader borrows from.
type pools struct{ small, large, next *sync.Pool }

func newPools(small, large *sync.Pool) pools { return pools{small: small, large: large, next: small} }

// learn chooses where to borrow next: who fills a buffer has more to say, who
// would not have filled the small one has less.
func (p *pools) learn(b *Buffer) {
	switch n := len(b.Data); {
	case n == len(b.room):
		p.next = p.large
	case n < smallChunk:
		p.calm()
	}
}

// calm chooses the small one.
func (p *pools) calm() { p.next = p.small }

// busy reports whether the last read filled its buffer, or nearly so.
func (p *pools) busy() bool { return p.next == p.large }
