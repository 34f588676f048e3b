//go:build !unix

package udpsock

import "net"

// reader reads a connected socket. Here it holds its buffer while it waits: the
// system cannot be asked whether a socket is readable. One goroutine may use it.
type reader struct{ conn *net.UDPConn }

func newReader(c *net.UDPConn) (*reader, error) { return &reader{c}, nil }

// next waits for a datagram and returns it.
func (r *reader) next() (*buffer, error) {
	b := borrow()
	n, err := r.conn.Read(b.whole[:])
	if err != nil {
		b.release()
		return nil, err
	}
	b.data = b.whole[:n]
	return b, nil
}
