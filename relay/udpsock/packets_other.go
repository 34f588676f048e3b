//go:build !linux

package udpsock

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// buffer is borrowed memory.
type buffer struct {
	data  []byte // What was read.
	whole [maxDatagram]byte
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func borrow() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() { buffers.Put(b) }

// Endpoint is where datagrams are sent, in the form that the system takes.
type Endpoint struct {
	address netip.AddrPort
	control []byte
}

// Conn is a UDP socket. Here its datagrams are read and written one by
// one. One goroutine may read, any may write.
type Conn struct {
	conn   *net.UDPConn
	reader *reader // Of a connected socket.
}

// New makes a Conn of a socket, which stays the caller's to
// close: that ends Read and Write.
func New(conn *net.UDPConn) (*Conn, error) {
	c := &Conn{conn: conn}
	if conn.RemoteAddr() == nil {
		return c, nil
	}
	var err error
	c.reader, err = newReader(conn)
	return c, err
}

// Batch are datagrams that were read together. Their memory is borrowed: who
// has read them releases them.
type Batch struct {
	buffer *buffer
	source netip.AddrPort
}

// Len is how many there are.
func (p *Batch) Len() int { return 1 }

// Data is what the i-th carries. One that is longer than wire.MaxDatagram may be
// cut, and is the caller's to drop.
func (p *Batch) Data(int) []byte { return p.buffer.data }

// Source is where the i-th came from. It is not valid on a connected socket.
func (p *Batch) Source(int) netip.AddrPort { return p.source }

// Control is the i-th's control messages.
func (p *Batch) Control(int) []byte { return nil }

// Release gives the memory back. Nothing of p may be used after it.
func (p *Batch) Release() { p.buffer.release() }

// Read waits for datagrams and returns those that are there, at least one.
func (c *Conn) Read() (*Batch, error) {
	if c.reader != nil {
		b, err := c.reader.next()
		if err != nil {
			return nil, err
		}
		return &Batch{buffer: b}, nil
	}
	b := borrow()
	n, source, err := c.conn.ReadFromUDPAddrPort(b.whole[:])
	if err != nil {
		b.release()
		return nil, err
	}
	b.data = b.whole[:n]
	return &Batch{buffer: b, source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port())}, nil
}

// Endpoint returns where a datagram for addr is sent with a control message.
func (c *Conn) Endpoint(addr netip.AddrPort, control []byte) Endpoint {
	return Endpoint{address: addr, control: control}
}

// Write sends datagrams in their order, waiting where the socket has no room. It
// returns how many the system refused; those of a socket that has been closed
// are not among them.
func (c *Conn) Write(out []Outgoing) (refused int) {
	for i := range out {
		err := c.send(&out[i])
		if err != nil && out[i].To == nil {
			// It may be about an earlier datagram, which the other end's machine
			// refused; this one has not been sent by it.
			err = c.send(&out[i])
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			refused++
		}
	}
	return refused
}

func (c *Conn) send(o *Outgoing) (err error) {
	data := o.Data
	if len(o.Head) > 0 {
		b := borrow()
		defer b.release()
		n := copy(b.whole[:], o.Head)
		data = b.whole[:n+copy(b.whole[n:], o.Data)]
	}
	if o.To == nil {
		_, err = c.conn.Write(data)
	} else {
		_, _, err = c.conn.WriteMsgUDPAddrPort(data, o.To.control, o.To.address)
	}
	return err
}
