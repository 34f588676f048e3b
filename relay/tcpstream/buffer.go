package tcpstream

import (
	"io"
	"sync"
	"syscall"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

const (
	// smallChunk and largeChunk are how much one read of a TCP connection takes:
	// largeChunk once smallChunk was filled, so that a connection with little to
	// say holds little memory. With the longest WebSocket frame header either one
	// fills whole TLS records and does not spill into another.
	smallChunk = 16<<10 - wire.MaxFrameHeader
	largeChunk = 128<<10 - wire.MaxFrameHeader
	// receiveChunk is how much of a stream's messages is read at once.
	receiveChunk = 64 << 10
	// gatherChunk is how much of a message leaves in one system call: TLS makes
	// one for each record of 16 kB.
	gatherChunk = 64 << 10
)

var (
	smallBuffers   = bufferPool(wire.MaxFrameHeader, smallChunk)
	largeBuffers   = bufferPool(wire.MaxFrameHeader, largeChunk)
	receiveBuffers = bufferPool(0, receiveChunk)
	gatherBuffers  = bufferPool(0, gatherChunk)
)

// Buffer is borrowed memory. Its holder releases it when it needs Data no longer.
type Buffer struct {
	Data []byte // What was read.

	whole []byte // All of its memory,
	room  []byte // and all but the part before what is read.
	pool  *sync.Pool
}

// Release returns the buffer. Data must not be used afterwards.
func (b *Buffer) Release() {
	b.Data = nil
	b.pool.Put(b)
}

// bufferPool makes a pool of buffers for size bytes, with front more bytes before
// them.
func bufferPool(front, size int) *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any {
		whole := make([]byte, front+size)
		return &Buffer{whole: whole, room: whole[front:], pool: pool}
	}
	return pool
}

func borrow(pool *sync.Pool) *Buffer { return pool.Get().(*Buffer) }

// socket is what a Reader reads.
type socket interface {
	io.Reader
	syscall.Conn
}

// pools are where a Reader borrows from.
type pools struct{ small, large, next *sync.Pool }

func newPools(small, large *sync.Pool) pools { return pools{small: small, large: large, next: small} }

// adapt chooses where to borrow next: a read that fills its buffer is likely to be
// followed by more, one that would not fill the small buffer by less.
func (p *pools) adapt(b *Buffer) {
	switch n := len(b.Data); {
	case n == len(b.room):
		p.next = p.large
	case n < smallChunk:
		p.useSmall()
	}
}

// useSmall chooses the small buffers.
func (p *pools) useSmall() { p.next = p.small }

// busy reports whether the last read filled its buffer, or nearly so.
func (p *pools) busy() bool { return p.next == p.large }
