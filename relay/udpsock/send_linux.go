package udpsock

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments and maxSegmented bound a message that the kernel segments, in
	// datagrams and in bytes.
	maxSegments, maxSegmented = 64, 60_000
	// vectorsAtOnce is the largest number of memory pieces per system call.
	vectorsAtOnce = 256
)

// sending is the kernel's view of datagrams to send: messages, each of one datagram
// or of several of one length to one endpoint, which the kernel separates
// (UDP_SEGMENT, see udp(7)).
type sending struct {
	messages [messagesAtOnce]message
	controls [messagesAtOnce][controlSpace]byte
	first    [messagesAtOnce + 1]int // The first datagram of each message.
	vectors  [vectorsAtOnce]unix.Iovec

	from, to int // Messages still to send.
	errno    syscall.Errno
	// How many messages and vectors are not zero.
	usedMessages, usedVectors int

	try  func(fd uintptr) bool // Made once, as those of Conn.
	once func(fd uintptr)
}

var sendings = sync.Pool{New: func() any {
	s := new(sending)
	s.try = s.send
	s.once = func(fd uintptr) { s.send(fd) }
	return s
}}

func (c *Conn) write(out []Datagram, wait bool) (unsent int, why error) {
	return c.send(out, true, wait)
}

// send sends datagrams, with segments as messages of several where that is
// possible. It returns how many were not sent, and the last error.
func (c *Conn) send(out []Datagram, segments, wait bool) (unsent int, why error) {
	s := sendings.Get().(*sending)
	defer s.release()
	again := c.connected || c.system.refusals.Load()
	for len(out) > 0 {
		segment := 0
		if segments && c.system.segments.Load() {
			segment = c.system.segment
		}
		packed := s.pack(out, segment)
		for retry := again; s.from < s.to; {
			closed := s.call(c.system.raw, wait)
			if closed == nil && s.errno == 0 {
				retry = again
				continue
			}
			first, next := s.first[s.from], s.first[s.from+1]
			switch {
			case closed != nil:
				return unsent + len(out) - first, closed
			case !wait && (s.errno == unix.EAGAIN || s.errno == unix.ENOBUFS):
				return unsent + len(out) - first, os.NewSyscallError("sendmmsg", s.errno)
			case retry:
				// The error may be about an earlier datagram, which the peer's
				// machine refused; this one has not been sent.
				retry = false
				continue
			case next-first == 1:
				unsent++
				why = os.NewSyscallError("sendmmsg", s.errno)
			default:
				// The device cannot segment (EIO: it computes no checksums), or the
				// segments do not fit the link (EINVAL): one by one, the kernel
				// tells which datagrams it refuses.
				if s.errno == unix.EIO {
					c.system.segments.Store(false)
				}
				n, err := c.send(out[first:next], false, wait)
				if unsent += n; n > 0 {
					why = err
				}
			}
			retry = again
			s.from++
		}
		out = out[packed:]
	}
	return unsent, why
}

// release returns s, and forgets the caller's memory.
func (s *sending) release() {
	clear(s.vectors[:s.usedVectors])
	clear(s.messages[:s.usedMessages])
	s.usedMessages, s.usedVectors = 0, 0
	sendings.Put(s)
}

// call sends messages until one fails, and sets errno if that was the first. It
// returns an error if the socket is closed.
func (s *sending) call(raw syscall.RawConn, wait bool) error {
	if wait {
		return raw.Write(s.try)
	}
	return raw.Control(s.once)
}

// send is called when the socket's buffer may have room. It returns false if it has
// none, for the runtime to wait.
func (s *sending) send(fd uintptr) bool {
	var n int
	if n, s.errno = sendMessages(fd, s.messages[s.from:s.to]); s.errno == 0 {
		s.from += n
	}
	return s.errno != unix.EAGAIN
}

// pack makes messages of as many datagrams as fit, and returns how many. Datagrams
// of one length to one endpoint become one message, which a shorter one may end, if
// they are no longer than segment bytes.
func (s *sending) pack(out []Datagram, segment int) int {
	s.from, s.to = 0, 0
	vectors, packed := 0, 0
	for s.to < messagesAtOnce && packed < len(out) && vectors+2 <= vectorsAtOnce {
		d := &out[packed]
		s.first[s.to] = packed
		begin, size := vectors, d.size()
		vectors = s.gather(d, vectors)
		packed++
		if size > 0 && size <= segment {
			for last, total := size, size; packed < len(out) && vectors+2 <= vectorsAtOnce && last == size; packed++ {
				next := &out[packed]
				last = next.size()
				if next.To != d.To || last == 0 || last > size || packed-s.first[s.to] == maxSegments || total+last > maxSegmented {
					break
				}
				total += last
				vectors = s.gather(next, vectors)
			}
		}
		s.address(d.To, s.vectors[begin:vectors], size, packed-s.first[s.to] > 1)
		s.to++
	}
	s.first[s.to] = packed
	s.usedMessages, s.usedVectors = max(s.usedMessages, s.to), max(s.usedVectors, vectors)
	return packed
}

// gather adds a datagram's memory to the vectors, of which there are n, and returns
// how many there are then.
func (s *sending) gather(d *Datagram, n int) int {
	if len(d.Head) > 0 {
		s.vectors[n].Base = &d.Head[0]
		s.vectors[n].SetLen(len(d.Head))
		n++
	}
	if len(d.Data) > 0 {
		s.vectors[n].Base = &d.Data[0]
		s.vectors[n].SetLen(len(d.Data))
		n++
	}
	return n
}

// address completes the message s.to.
func (s *sending) address(to *Endpoint, vectors []unix.Iovec, size int, segmented bool) {
	h := &s.messages[s.to].header
	*h = unix.Msghdr{}
	if len(vectors) > 0 {
		h.Iov = &vectors[0]
		h.SetIovlen(len(vectors))
	}
	control := s.controls[s.to][:0]
	if to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.name)), to.length
		control = to.appendLocal(control)
	}
	if segmented {
		var content unsafe.Pointer
		control, content = appendControl(control, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		*(*uint16)(content) = uint16(size)
	}
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
}
