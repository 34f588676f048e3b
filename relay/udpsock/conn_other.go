//go:build !linux

package udpsock

import (
	"net"
	"net/netip"
)

// Endpoint is a peer of a socket: where a datagram came from and where one is sent.
// It belongs to the socket that it is from. Endpoints are equal (==) if they are the
// same peer; the zero value is no endpoint.
type Endpoint struct{ addr netip.AddrPort }

// Endpoint returns the endpoint of an address, at the local address that the route
// chooses.
func (*Conn) Endpoint(addr netip.AddrPort) Endpoint {
	return Endpoint{netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
}

func (e *Endpoint) source() netip.AddrPort { return e.addr }

func (*Endpoint) localAddr() netip.Addr { return netip.Addr{} }

// batchMemory is memory for one datagram.
type batchMemory struct {
	from Endpoint
	data [maxDatagram]byte
}

func (*batchMemory) init() {}

func (*batchMemory) reset(int) {}

// filled notes that the batch's memory holds a datagram of n bytes.
func (b *Batch) filled(n int, from Endpoint) *Batch {
	b.memory.from = from
	b.datagrams = append(b.datagrams[:0], received{b.memory.data[:n:n], &b.memory.from})
	return b
}

// system is the part of a Conn that differs between systems.
type system struct {
	reader *reader  // Of a connected socket.
	peer   Endpoint // Of the same.
}

func (c *Conn) prepare(Options) (err error) {
	if !c.connected {
		return nil
	}
	if a, ok := c.conn.RemoteAddr().(*net.UDPAddr); ok {
		c.system.peer = c.Endpoint(a.AddrPort())
	}
	c.system.reader, err = newReader(c.conn)
	return err
}

func (c *Conn) read() (*Batch, error) {
	if c.connected {
		b, n, err := c.system.reader.next()
		if err != nil {
			return nil, err
		}
		return b.filled(n, c.system.peer), nil
	}
	b := batches.Get().(*Batch)
	n, source, err := c.conn.ReadFromUDPAddrPort(b.memory.data[:])
	if err != nil {
		b.Release()
		return nil, err
	}
	return b.filled(n, c.Endpoint(source)), nil
}

func (c *Conn) write(out []Datagram, _ bool) (unsent int, why error) {
	for i := range out {
		err := c.send(&out[i])
		if err != nil && c.connected {
			// It may be about an earlier datagram, which the peer's machine
			// refused; this one has not been sent.
			err = c.send(&out[i])
		}
		if err != nil {
			unsent++
			why = err
		}
	}
	return unsent, why
}

func (c *Conn) send(d *Datagram) (err error) {
	data := d.Data
	if len(d.Head) > 0 {
		b := batches.Get().(*Batch)
		defer b.Release()
		whole := b.memory.data[:]
		n := copy(whole, d.Head)
		data = whole[:n+copy(whole[n:], d.Data)]
	}
	if d.To == nil {
		_, err = c.conn.Write(data)
	} else {
		_, err = c.conn.WriteToUDPAddrPort(data, d.To.addr)
	}
	return err
}

// IsTooLong reports whether an error of TryWrite means that a datagram was too long
// for the link. Systems other than Linux do not tell: they fragment it.
func IsTooLong(error) bool { return false }
