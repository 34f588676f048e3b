//go:build !unix

package forward

import (
	"errors"
	"io"
	"sync"
)

// Reader reads a socket. Here it holds its buffer while it waits: the system
// has no way to be asked whether a socket is readable. One goroutine may use it.
type Reader struct {
	socket io.Reader
	pool   *sync.Pool
}

func newReader(s socket, pool *sync.Pool) (*Reader, error) {
	return &Reader{socket: s, pool: pool}, nil
}

// Next waits for data and returns it, at the end of a stream (and for an empty
// datagram) with no bytes. A read deadline set on the socket holds.
func (r *Reader) Next() (*Buffer, error) {
	b := borrow(r.pool)
	n, err := r.socket.Read(b.whole)
	if err != nil && !errors.Is(err, io.EOF) {
		b.Release()
		return nil, err
	}
	b.Data = b.whole[:n]
	return b, nil
}
