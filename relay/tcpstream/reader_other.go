//go:build !unix

package tcpstream

import (
	"errors"
	"io"
	"sync"
)

// Reader reads a socket. Here it holds its buffer while it waits: the system cannot
// tell whether a socket is readable. One goroutine may use it.
type Reader struct {
	socket io.Reader
	pools  pools
}

func newReader(s socket, small, large *sync.Pool) (*Reader, error) {
	return &Reader{socket: s, pools: newPools(small, large)}, nil
}

// Next waits for data and returns it, at the end of a stream (and for an empty
// datagram) with no bytes. It returns at most as many bytes as said, or any number for
// 0. A read deadline set on the socket holds.
func (r *Reader) Next(most int) (*Buffer, error) {
	b := borrow(r.pools.next)
	n, err := r.socket.Read(b.room[:atMost(len(b.room), most)])
	if err != nil && !errors.Is(err, io.EOF) {
		b.Release()
		return nil, err
	}
	b.Data = b.room[:n]
	r.pools.adapt(b)
	return b, nil
}
