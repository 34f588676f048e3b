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

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// chunk is how many bytes of a stream make one message: with the longest
	// header of a WebSocket frame (14 bytes) it fills two TLS records and does
	// not spill into a third.
	chunk = 32<<10 - 14
	// datagramChunk takes any datagram, and shows which ones are too long.
	datagramChunk = 64 << 10

	// SocketBuffer is how many bytes of datagrams UDP sockets should be asked to
	// hold: a burst is lost where it finds no room. The system may give less.
	SocketBuffer = 4 << 20

	// WriteBufferSize is the size in bytes that WebSockets of data connections
	// should be given for writing, so that a chunk takes one write.
	WriteBufferSize = 32 << 10

	// ReadBufferSize is the size in bytes that WebSockets of data connections
	// should be given for reading, which each of them holds for good: headers of
	// frames and short messages. What is longer is read past it.
	ReadBufferSize = 1 << 10
)

// WriteBuffers is the pool that WebSockets with a WriteBufferSize share.
var WriteBuffers sync.Pool

var (
	streamBuffers = bufferPool(chunk)
	batchBuffers  = bufferPool(wire.MaxBatch)
)

// Buffer is borrowed memory. Its holder releases it when done with Data.
type Buffer struct {
	Data []byte // What was read.

	whole []byte
	pool  *sync.Pool
}

// Release gives the buffer back. Data must not be used after it.
func (b *Buffer) Release() {
	b.Data = nil
	b.pool.Put(b)
}

func bufferPool(size int) *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any { return &Buffer{whole: make([]byte, size), pool: pool} }
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
