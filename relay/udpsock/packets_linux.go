package udpsock

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetSlot is the memory that each datagram of a batch is read into. It is no
// power of two: the beginnings, which is all there is of most datagrams, would
// compete for the same lines of the CPU's caches.
const packetSlot = maxDatagram + 320

// Endpoint is where datagrams are sent, in the form that the system takes.
type Endpoint struct {
	name    unix.RawSockaddrInet6 // Or an IPv4 one in its memory,
	length  uint32                // by its length.
	control []byte
}

// Conn is a UDP socket whose datagrams are read and written many at a
// time. One goroutine may read, any may write.
type Conn struct {
	raw       syscall.RawConn
	connected bool
	family    uint16
	segments  atomic.Bool // The kernel cuts one long message into datagrams.

	reads   Reads
	packets *Batch // What was read last.
	err     error
	try     func(fd uintptr) bool // Made once: a closure for each read would be garbage.
	once    func(fd uintptr)
}

// New makes a Conn of a socket, which stays the caller's to
// close: that ends Read and Write.
func New(conn *net.UDPConn) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	c := &Conn{raw: raw, connected: conn.RemoteAddr() != nil}
	c.try = c.read
	c.once = func(fd uintptr) { c.read(fd) }
	var familyErr error
	err = raw.Control(func(fd uintptr) {
		var family int
		family, familyErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		c.family = uint16(family)
		// A kernel that does not know of it would send the message uncut.
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		c.segments.Store(err == nil)
	})
	if err == nil {
		err = familyErr
	}
	if err != nil {
		return nil, fmt.Errorf("get the socket's family: %w", err)
	}
	return c, nil
}

// Batch are datagrams that were read together. Their memory is borrowed: who
// has read them releases them.
type Batch struct {
	n        int
	memory   []byte
	headers  [packetsAtOnce]Message
	vectors  [packetsAtOnce]unix.Iovec
	names    [packetsAtOnce]unix.RawSockaddrInet6
	controls [packetsAtOnce][ControlSpace]byte
}

var packetBuffers = sync.Pool{New: func() any {
	// Most of it is never touched, and takes no memory until it is.
	p := &Batch{memory: make([]byte, packetsAtOnce*packetSlot)}
	for i := range p.headers {
		p.vectors[i].Base = &p.memory[i*packetSlot]
		p.vectors[i].SetLen(maxDatagram)
		p.headers[i].Header.Iov = &p.vectors[i]
		p.headers[i].Header.SetIovlen(1)
	}
	return p
}}

// Len is how many there are.
func (p *Batch) Len() int { return p.n }

// Data is what the i-th carries. One that is longer than wire.MaxDatagram may be
// cut, and is the caller's to drop.
func (p *Batch) Data(i int) []byte {
	return p.memory[i*packetSlot:][:p.headers[i].Length]
}

// Source is where the i-th came from. It is not valid on a connected socket.
func (p *Batch) Source(i int) netip.AddrPort {
	name := &p.names[i]
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), ntohs(v4.Port))
	case unix.AF_INET6:
		ip := netip.AddrFrom16(name.Addr).Unmap()
		if name.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, ntohs(name.Port))
	}
	return netip.AddrPort{}
}

// Control is the i-th's control messages.
func (p *Batch) Control(i int) []byte {
	return p.controls[i][:p.headers[i].Header.Controllen]
}

// Release gives the memory back. Nothing of p may be used after it.
func (p *Batch) Release() { packetBuffers.Put(p) }

// Read waits for datagrams and returns those that are there, at least one.
func (c *Conn) Read() (*Batch, error) {
	if err := c.raw.Read(c.try); err != nil {
		return nil, err
	}
	packets := c.packets
	c.packets = nil
	return packets, c.err
}

// TryRead is Read without waiting: it may return nothing.
func (c *Conn) TryRead() (*Batch, error) {
	c.packets, c.err = nil, nil
	if err := c.raw.Control(c.once); err != nil {
		return nil, err
	}
	packets := c.packets
	c.packets = nil
	return packets, c.err
}

// read is called when the socket may be readable; false means that it was not,
// and has the runtime wait until it is. Memory is borrowed only now: thousands of
// silent flows hold none.
func (c *Conn) read(fd uintptr) bool {
	p := packetBuffers.Get().(*Batch)
	p.prepare(!c.connected)
	n, errno := c.reads.Receive(fd, p.headers[:])
	if errno == 0 {
		p.n = n
		c.packets, c.err = p, nil
		return true
	}
	p.Release()
	if errno == unix.EAGAIN {
		return false
	}
	c.err = os.NewSyscallError("recvmmsg", errno)
	return true
}

// prepare offers the kernel room for names and control messages, which it cuts
// to what it used.
func (p *Batch) prepare(addressed bool) {
	for i := range p.headers {
		h := &p.headers[i].Header
		h.Name, h.Namelen, h.Control = nil, 0, nil
		h.SetControllen(0)
		if addressed {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&p.names[i])), unix.SizeofSockaddrInet6
			h.Control = &p.controls[i][0]
			h.SetControllen(ControlSpace)
		}
	}
}

// Endpoint returns where a datagram for addr is sent with a control message.
func (c *Conn) Endpoint(addr netip.AddrPort, control []byte) Endpoint {
	ip := addr.Addr()
	if c.family == unix.AF_INET {
		e := Endpoint{length: unix.SizeofSockaddrInet4, control: control}
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&e.name))
		v4.Family, v4.Port, v4.Addr = unix.AF_INET, htons(addr.Port()), ip.Unmap().As4()
		return e
	}
	e := Endpoint{
		name:    unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: htons(addr.Port()), Addr: ip.As16()},
		length:  unix.SizeofSockaddrInet6,
		control: control,
	}
	if scope, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		e.name.Scope_id = uint32(scope) // As Source has it.
	}
	return e
}

func ntohs(v uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&v))[:]) }
func htons(v uint16) uint16 { return ntohs(v) }
