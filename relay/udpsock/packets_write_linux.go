package udpsock

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegment is the longest datagram of which several are given to the kernel
	// as one message, to be cut by it (UDP_SEGMENT, see udp(7)): below what links
	// carry whole, where the kernel would refuse it.
	maxSegment = 1400
	// maxSegments and maxSegmented bound such a message.
	maxSegments, maxSegmented = 64, 60_000
	// vectorsAtOnce is how many pieces of memory one system call may gather.
	vectorsAtOnce = 256
)

// sending is the kernel's view of datagrams to be sent.
type sending struct {
	headers  [packetsAtOnce]Message
	controls [packetsAtOnce][ControlSpace + 24]byte
	first    [packetsAtOnce + 1]int // The first datagram of each message.
	vectors  [vectorsAtOnce]unix.Iovec

	from, to int // Messages still to be sent.
	used     int // Vectors.
	errno    syscall.Errno
	try      func(fd uintptr) bool // Made once, as that of Conn.
}

var sendings = sync.Pool{New: func() any {
	s := new(sending)
	s.try = s.write
	return s
}}

// Write sends datagrams in their order, waiting where the socket has no room. It
// returns how many the system refused; those of a socket that has been closed
// are not among them.
func (c *Conn) Write(out []Outgoing) (refused int) {
	refused, _ = c.write(out, c.segments.Load())
	return refused
}

func (c *Conn) write(out []Outgoing, segments bool) (refused int, open bool) {
	s := sendings.Get().(*sending)
	defer s.release()
	for len(out) > 0 {
		n := s.pack(out, segments)
		for again := c.connected; s.from < s.to; {
			s.errno = 0
			if err := c.raw.Write(s.try); err != nil {
				return refused, false
			}
			if s.errno == 0 {
				again = c.connected
				continue
			}
			first, next := s.first[s.from], s.first[s.from+1]
			switch {
			case again:
				// The error may be about an earlier datagram, which the other
				// end's machine refused; this one has not been sent by it.
				again = false
				continue
			case next-first == 1:
				refused++
			default:
				if s.errno == unix.EIO { // The interface cannot do it.
					c.segments.Store(false)
				}
				r, open := c.write(out[first:next], false)
				if refused += r; !open {
					return refused, false
				}
			}
			again = c.connected
			s.from++
		}
		out = out[n:]
	}
	return refused, true
}

// release forgets what s points to, which is the caller's.
func (s *sending) release() {
	clear(s.vectors[:s.used])
	for i := range s.headers[:s.to] {
		s.headers[i].Header = unix.Msghdr{}
	}
	sendings.Put(s)
}

// write is called when the socket may have room; false has the runtime wait
// until it has.
func (s *sending) write(fd uintptr) bool {
	n, errno := SendMessages(fd, s.headers[s.from:s.to])
	switch errno {
	case 0:
		s.from += n
	case unix.EAGAIN:
		return false
	default:
		s.errno = errno
	}
	return true
}

// pack makes messages of as many datagrams as fit, and returns how many. With
// segments, those of one length to one endpoint make one message together, and
// a shorter one after them ends it.
func (s *sending) pack(out []Outgoing, segments bool) int {
	s.from, s.to, s.used = 0, 0, 0
	vectors, taken := 0, 0
	for s.to < packetsAtOnce && taken < len(out) && vectors+2 <= vectorsAtOnce {
		o := &out[taken]
		s.first[s.to] = taken
		begin, size := vectors, o.size()
		vectors = s.gather(o, vectors)
		taken++
		if segments && size > 0 && size <= maxSegment {
			for last, total := size, size; taken < len(out) && vectors+2 <= vectorsAtOnce && last == size; taken++ {
				next := &out[taken]
				last = next.size()
				if next.To != o.To || last == 0 || last > size || taken-s.first[s.to] == maxSegments || total+last > maxSegmented {
					break
				}
				total += last
				vectors = s.gather(next, vectors)
			}
		}
		s.address(o.To, s.vectors[begin:vectors], size, taken-s.first[s.to] > 1)
		s.to++
	}
	s.first[s.to] = taken
	s.used = vectors
	return taken
}

// gather adds a datagram's memory to the vectors.
func (s *sending) gather(o *Outgoing, at int) int {
	for _, b := range [2][]byte{o.Head, o.Data} {
		if len(b) > 0 {
			s.vectors[at].Base = &b[0]
			s.vectors[at].SetLen(len(b))
			at++
		}
	}
	return at
}

// address completes the message s.to.
func (s *sending) address(to *Endpoint, vectors []unix.Iovec, size int, segmented bool) {
	h := &s.headers[s.to].Header
	*h = unix.Msghdr{}
	if len(vectors) > 0 {
		h.Iov = &vectors[0]
		h.SetIovlen(len(vectors))
	}
	control := s.controls[s.to][:0]
	if to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.name)), to.length
		control = append(control, to.control...)
	}
	if segmented {
		at := len(control)
		control = control[:at+unix.CmsgSpace(2)]
		clear(control[at:])
		m := (*unix.Cmsghdr)(unsafe.Pointer(&control[at]))
		m.Level, m.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		m.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Pointer(&control[at+unix.CmsgLen(0)])) = uint16(size)
	}
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
}
