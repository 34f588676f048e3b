package udpsock

import (
	"errors"
	"net"
	"net/netip"
)

// Conn is a UDP socket that is read and written many datagrams at a time. One
// goroutine may read, any may call the other methods.
type Conn struct {
	conn      *net.UDPConn
	connected bool
	system    system
}

// New makes a Conn of a socket, bound or connected, and takes it over: Close closes
// it. If New fails, conn remains the caller's.
func New(conn *net.UDPConn, o Options) (*Conn, error) {
	// Errors are ignored: a smaller buffer works, too.
	if o.ReadBuffer > 0 {
		_ = conn.SetReadBuffer(o.ReadBuffer)
	}
	if o.WriteBuffer > 0 {
		_ = conn.SetWriteBuffer(o.WriteBuffer)
	}
	c := &Conn{conn: conn, connected: conn.RemoteAddr() != nil}
	if err := c.prepare(o); err != nil {
		return nil, err
	}
	return c, nil
}

// LocalAddr returns the address that the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort {
	if a, ok := c.conn.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// Close closes the socket. Read, Write and TryWrite return, with net.ErrClosed
// those that return an error.
func (c *Conn) Close() error { return c.conn.Close() }

// Read waits for datagrams and returns those that have arrived, at least one. The
// caller releases the batch. On a connected socket an error may report that the
// peer's machine refused an earlier datagram; reading can go on after any error
// but net.ErrClosed.
func (c *Conn) Read() (*Batch, error) { return c.read() }

// Write sends datagrams in order, waiting while the socket's buffer is full. It
// returns how many the system refused, none of them if the socket was closed.
func (c *Conn) Write(out []Datagram) (refused int) {
	refused, err := c.write(out, true)
	if errors.Is(err, net.ErrClosed) {
		return 0
	}
	return refused
}

// TryWrite sends datagrams in order and does not wait: once the socket's buffer is
// full, the rest is not sent. It returns how many were not sent, and the error of
// the last of these. On systems other than Linux it may wait as Write does.
func (c *Conn) TryWrite(out []Datagram) (unsent int, err error) { return c.write(out, false) }
