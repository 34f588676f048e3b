package udptunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

const (
	// readBatch messages are read by one system call. Each has room for what the
	// kernel may have joined to one (UDP_GRO).
	readBatch   = 8
	messageRoom = 64 << 10
	// writeBatch messages are written by one system call, of as many packets in
	// all. The kernel cuts a message to packets (UDP_SEGMENT): at most
	// maxSegments, of less than 64 kB together.
	writeBatch  = 64
	maxSegments = 32
)

// address is where a packet has come from and to, as the kernel has it: no
// packet's is ever spelled out.
type address struct {
	name   unix.RawSockaddrInet6 // Or the beginning of it a RawSockaddrInet4.
	length uint32
	local  [16]byte // Which of this machine's addresses; IPv4 in the last four bytes.
	v6     bool     // Of local.
}

// system is what Linux has beyond the portable.
type system struct {
	raw    syscall.RawConn
	family int
	// segments: the kernel cuts messages to packets.
	segments atomic.Bool
}

func (s *system) prepare(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	var failed error
	err = raw.Control(func(fd uintptr) { failed = s.options(int(fd)) })
	return errors.Join(err, failed)
}

func (s *system) options(fd int) (err error) {
	if s.family, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return fmt.Errorf("get the socket's family: %w", err)
	}
	level, info, discover := unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER
	if s.family == unix.AF_INET6 {
		level, info, discover = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_MTU_DISCOVER
		// For IPv4 through the same socket.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	// A machine with several addresses must answer from the one that was asked.
	if err := unix.SetsockoptInt(fd, level, info, 1); err != nil {
		return fmt.Errorf("ask for the destinations of packets: %w", err)
	}
	// Don't-fragment set, and no size learned from ICMP, which anybody can send:
	// probes find out what arrives.
	_ = unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_PROBE)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.segments.Store(err == nil)
	return nil
}

// resolve makes the address of a peer for this socket.
func (s *system) resolve(to netip.AddrPort) address {
	var a address
	ip := to.Addr().Unmap()
	if s.family == unix.AF_INET {
		v4 := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: ip.As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&v4.Port))[:], to.Port())
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&a.name)) = v4
		a.length = unix.SizeofSockaddrInet4
		return a
	}
	a.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			a.name.Scope_id = uint32(i.Index)
		}
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&a.name.Port))[:], to.Port())
	a.length = unix.SizeofSockaddrInet6
	return a
}

// incoming is memory to read messages into.
type incoming struct {
	headers  [readBatch]udpsock.Message
	vectors  [readBatch]unix.Iovec
	names    [readBatch]unix.RawSockaddrInet6
	controls [readBatch][128]byte
	data     [readBatch][messageRoom]byte
}

// incomings holds memory that is borrowed only while there is something to read:
// a silent path costs none.
var incomings = sync.Pool{New: func() any {
	m := new(incoming)
	for i := range m.headers {
		m.vectors[i].Base = &m.data[i][0]
		m.vectors[i].SetLen(messageRoom)
		h := &m.headers[i].Header
		h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		h.Iov = &m.vectors[i]
		h.SetIovlen(1)
		h.Control = &m.controls[i][0]
	}
	return m
}}

// reading is what a receiver needs to read.
type reading struct {
	calls  udpsock.Reads
	memory *incoming // nil between reads.
	n      int
	err    error
	try    func(fd uintptr) bool // Made once: a closure for each read would be garbage.
}

// read waits for packets, has a receiver take them, and flushes it, until when
// their memory lasts.
func (s *system) read(_ *net.UDPConn, r *receiver) error {
	g := &r.reading
	if g.try == nil {
		g.try = func(fd uintptr) bool {
			g.memory = incomings.Get().(*incoming)
			if g.n, g.err = g.memory.receive(fd, &g.calls); errors.Is(g.err, syscall.EAGAIN) {
				incomings.Put(g.memory)
				g.memory = nil
				return false
			}
			return true
		}
	}
	if err := s.raw.Read(g.try); err != nil {
		return err
	}
	m := g.memory
	g.memory = nil
	defer incomings.Put(m)
	if g.err != nil {
		return os.NewSyscallError("recvmmsg", g.err)
	}
	for i := range g.n {
		m.split(i, r)
	}
	r.flush()
	return nil
}

func (m *incoming) receive(fd uintptr, calls *udpsock.Reads) (int, error) {
	for i := range m.headers {
		h := &m.headers[i].Header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(len(m.controls[i]))
	}
	n, errno := calls.Receive(fd, m.headers[:])
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// split has the packets of a message taken.
func (m *incoming) split(i int, r *receiver) {
	h := &m.headers[i]
	data := m.data[i][:h.Length]
	from := address{name: m.names[i], length: h.Header.Namelen}
	size := len(data)
	for control := m.controls[i][:h.Header.Controllen]; len(control) >= unix.SizeofCmsghdr; {
		c, content, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		control = rest
		switch {
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && len(content) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&content[0]))
			copy(from.local[12:], info.Spec_dst[:])
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO && len(content) >= unix.SizeofInet6Pktinfo:
			from.local = (*unix.Inet6Pktinfo)(unsafe.Pointer(&content[0])).Addr
			from.v6 = !netip.AddrFrom16(from.local).Is4In6()
		case c.Level == unix.IPPROTO_UDP && c.Type == unix.UDP_GRO && len(content) >= 4:
			size = int(binary.NativeEndian.Uint32(content))
		}
	}
	for len(data) > size && size > 0 {
		r.take(data[:size:size], &from)
		data = data[size:]
	}
	r.take(data, &from)
}

// outgoing is memory to write messages from.
type outgoing struct {
	headers  [writeBatch]udpsock.Message
	vectors  [writeBatch]unix.Iovec
	controls [writeBatch][96]byte
	name     unix.RawSockaddrInet6

	from, to, sent int // What call is to send, and what it has sent of that.
	err            error
	call           func(fd uintptr) // Made once, as in reading.
}

var outgoings = sync.Pool{New: func() any {
	m := new(outgoing)
	m.call = m.sendmmsg
	return m
}}

// write sends packets to an address, and returns how many the system would not
// send, and why one of them. It never waits.
func (s *system) write(_ *net.UDPConn, all []*packet, to *address) (unsent int, why error) {
	m := outgoings.Get().(*outgoing)
	defer outgoings.Put(m)
	m.name = to.name
	for joined := s.segments.Load(); len(all) > 0; {
		messages, taken := m.fill(all, to, joined)
		for sent := 0; sent < messages; {
			n, err := m.send(s.raw, sent, messages)
			if sent += n; sent == messages {
				break
			}
			if joined && (errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EINVAL)) {
				// The device cannot have it cut (EIO: no checksums), or packets this long
				// do not fit it. One by one, the kernel says which do not.
				if errors.Is(err, syscall.EIO) {
					s.segments.Store(false)
				}
				joined, taken = false, m.count(0, sent)
				break
			}
			why = err
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) {
				unsent += m.count(sent, messages) // There is no room for any.
				break
			}
			unsent += m.count(sent, sent+1)
			sent++
		}
		all = all[taken:]
	}
	return unsent, why
}

// count is how many packets the messages from one to another have.
func (m *outgoing) count(from, to int) (packets int) {
	for i := from; i < to; i++ {
		packets += int(m.headers[i].Header.Iovlen)
	}
	return packets
}

// fill makes messages of packets, and returns how many, and how many packets they
// take. Joined makes one message of packets that are equally long, of which the
// last may be shorter.
func (m *outgoing) fill(all []*packet, to *address, joined bool) (messages, taken int) {
	for taken < len(all) && taken < writeBatch {
		first := taken
		size := all[first].n
		for {
			p := all[taken]
			m.vectors[taken].Base = &p.data[0]
			m.vectors[taken].SetLen(p.n)
			taken++
			if !joined || p.n < size || taken == len(all) || taken == writeBatch ||
				all[taken].n > size || taken-first == maxSegments {
				break
			}
		}
		h := &m.headers[messages].Header
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&m.name)), Namelen: to.length, Iov: &m.vectors[first]}
		h.SetIovlen(taken - first)
		n := putSource(m.controls[messages][:], to)
		if taken-first > 1 {
			n += putSegment(m.controls[messages][n:], size)
		}
		if n > 0 {
			h.Control = &m.controls[messages][0]
			h.SetControllen(n)
		}
		messages++
	}
	return messages, taken
}

// send sends messages, from one to another, until one fails, and returns how many
// were sent before it.
func (m *outgoing) send(raw syscall.RawConn, from, to int) (int, error) {
	m.from, m.to, m.sent, m.err = from, to, 0, nil
	if err := raw.Control(m.call); err != nil {
		return 0, err
	}
	return m.sent, m.err
}

func (m *outgoing) sendmmsg(fd uintptr) {
	for m.from+m.sent < m.to {
		n, errno := udpsock.SendMessages(fd, m.headers[m.from+m.sent:m.to])
		if errno != 0 {
			m.err = errno
			return
		}
		m.sent += n
	}
}

// putSource puts the control message into b that has a packet sent from the
// address at which the peer reached this machine, and returns its length.
func putSource(b []byte, to *address) int {
	switch {
	case to.v6:
		info := (*unix.Inet6Pktinfo)(putControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo))
		*info = unix.Inet6Pktinfo{Addr: to.local}
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	case to.local != [16]byte{}:
		info := (*unix.Inet4Pktinfo)(putControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo))
		*info = unix.Inet4Pktinfo{Spec_dst: [4]byte(to.local[12:])}
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	default:
		return 0
	}
}

// putSegment puts the control message into b that has a message cut to packets,
// and returns its length.
func putSegment(b []byte, size int) int {
	*(*uint16)(putControl(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)) = uint16(size)
	return unix.CmsgSpace(2)
}

// putControl puts the header of a control message into b, and returns where its
// content of some bytes belongs.
func putControl(b []byte, level, kind int32, content int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(content))
	return unsafe.Pointer(&b[unix.CmsgLen(0)])
}

// tooLong reports whether a packet was not sent because it was too long.
func tooLong(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EINVAL)
}
