//go:build !unix

package udpsock

import "net"

// reader reads a connected socket. It holds memory while it waits: the system
// cannot be asked whether a socket is readable. One goroutine may use it.
type reader struct{ conn *net.UDPConn }

func newReader(c *net.UDPConn) (*reader, error) { return &reader{c}, nil }

// next waits for a datagram and returns the batch whose memory holds it, and its
// length.
func (r *reader) next() (*Batch, int, error) {
	b := batches.Get().(*Batch)
	n, err := r.conn.Read(b.memory.data[:])
	if err != nil {
		b.Release()
		return nil, 0, err
	}
	return b, n, nil
}
