//go:build !linux

package forward

import (
	"errors"
	"net"
	"net/netip"
)

var datagramBuffers = bufferPool(0, datagramChunk)

// Endpoint is where datagrams are sent, in the form that the system takes.
type Endpoint struct {
	address netip.AddrPort
	control []byte
}

// PacketConn is a UDP socket. Here its datagrams are read and written one by
// one. One goroutine may read, any may write.
type PacketConn struct {
	conn   *net.UDPConn
	reader *Reader // Of a connected socket.
}

// NewPacketConn makes a PacketConn of a socket, which stays the caller's to
// close: that ends Read and Write.
func NewPacketConn(conn *net.UDPConn) (*PacketConn, error) {
	c := &PacketConn{conn: conn}
	if conn.RemoteAddr() == nil {
		return c, nil
	}
	var err error
	c.reader, err = newReader(conn, datagramBuffers, datagramBuffers)
	return c, err
}

// Packets are datagrams that were read together. Their memory is borrowed: who
// has read them releases them.
type Packets struct {
	buffer *Buffer
	source netip.AddrPort
}

// Len is how many there are.
func (p *Packets) Len() int { return 1 }

// Data is what the i-th carries. One that is longer than wire.MaxDatagram may be
// cut, and is the caller's to drop.
func (p *Packets) Data(int) []byte { return p.buffer.Data }

// Source is where the i-th came from. It is not valid on a connected socket.
func (p *Packets) Source(int) netip.AddrPort { return p.source }

// Control is the i-th's control messages.
func (p *Packets) Control(int) []byte { return nil }

// Release gives the memory back. Nothing of p may be used after it.
func (p *Packets) Release() { p.buffer.Release() }

// Read waits for datagrams and returns those that are there, at least one.
func (c *PacketConn) Read() (*Packets, error) {
	if c.reader != nil {
		b, err := c.reader.Next()
		if err != nil {
			return nil, err
		}
		return &Packets{buffer: b}, nil
	}
	b := borrow(datagramBuffers)
	n, source, err := c.conn.ReadFromUDPAddrPort(b.whole)
	if err != nil {
		b.Release()
		return nil, err
	}
	b.Data = b.whole[:n]
	return &Packets{buffer: b, source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port())}, nil
}

// Endpoint returns where a datagram for addr is sent with a control message.
func (c *PacketConn) Endpoint(addr netip.AddrPort, control []byte) Endpoint {
	return Endpoint{address: addr, control: control}
}

// Write sends datagrams in their order, waiting where the socket has no room. It
// returns how many the system refused; those of a socket that has been closed
// are not among them.
func (c *PacketConn) Write(out []Outgoing) (refused int) {
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

func (c *PacketConn) send(o *Outgoing) (err error) {
	data := o.Data
	if len(o.Head) > 0 {
		b := borrow(datagramBuffers)
		defer b.Release()
		n := copy(b.whole, o.Head)
		data = b.whole[:n+copy(b.whole[n:], o.Data)]
	}
	if o.To == nil {
		_, err = c.conn.Write(data)
	} else {
		_, _, err = c.conn.WriteMsgUDPAddrPort(data, o.To.control, o.To.address)
	}
	return err
}
