//go:build !linux

package udptunnel

import (
	"net"
	"net/netip"
	"sync"
)

// address is where a packet has come from.
type address struct{ peer netip.AddrPort }

// system does without what other systems have not got.
type system struct{}

func (*system) prepare(*net.UDPConn) error { return nil }

func (*system) resolve(to netip.AddrPort) address { return address{to} }

// incomings holds memory for packets that have come.
var incomings = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// reading is what a receiver needs to read.
type reading struct{}

// read waits for a packet, has a receiver take it, and flushes it, until when its
// memory lasts.
func (*system) read(c *net.UDPConn, r *receiver) error {
	b := incomings.Get().(*[64 << 10]byte)
	defer incomings.Put(b)
	n, from, err := c.ReadFromUDPAddrPort(b[:])
	if err != nil {
		return err
	}
	r.take(b[:n], &address{netip.AddrPortFrom(from.Addr().Unmap(), from.Port())})
	r.flush()
	return nil
}

// write sends packets to an address, and returns how many the system would not
// send, and why one of them.
func (*system) write(c *net.UDPConn, all []*packet, to *address) (unsent int, why error) {
	for _, p := range all {
		if _, err := c.WriteToUDPAddrPort(p.data[:p.n], to.peer); err != nil {
			unsent++
			why = err
		}
	}
	return unsent, why
}

// tooLong reports whether a packet was not sent because it was too long, which
// other systems say in ways of their own: they cut such packets themselves.
func tooLong(error) bool { return false }
