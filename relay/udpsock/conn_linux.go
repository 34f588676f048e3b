package udpsock

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSegment is the longest datagram, in bytes, of which the kernel is given
// several as one message, unless Options.ProbeMTU is set: it refuses to segment a
// message into datagrams that the link cannot carry whole.
const maxSegment = 1400

// system is the part of a Conn that is Linux's alone.
type system struct {
	raw      syscall.RawConn
	family   int
	segments atomic.Bool // The kernel segments messages (UDP_SEGMENT).
	segment  int         // The longest segment, in bytes.
	refusals atomic.Bool // As of Options, until Connect.

	// Of the goroutine that reads.
	calls   readCalls
	batch   *Batch                // What was read last,
	err     error                 // and why nothing was.
	tryRead func(fd uintptr) bool // Made once: a closure for each read would be garbage.
	once    func(fd uintptr)
}

func (c *Conn) prepare(o Options) error {
	s := &c.system
	s.tryRead = c.receive
	s.once = func(fd uintptr) { c.receive(fd) }
	s.segment = maxSegment
	if o.ProbeMTU {
		s.segment = maxSegmented
	}
	var err, failed error
	if s.raw, err = c.conn.SyscallConn(); err != nil {
		return err
	}
	if err = s.raw.Control(func(fd uintptr) { failed = s.set(int(fd), o) }); err != nil {
		return err
	}
	return failed
}

// set sets the socket's options.
func (s *system) set(fd int, o Options) (err error) {
	if s.family, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return fmt.Errorf("get the socket's family: %w", err)
	}
	level, info, discover := unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER
	if s.family == unix.AF_INET6 {
		level, info, discover = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_MTU_DISCOVER
	}
	if o.Destinations {
		if err := unix.SetsockoptInt(fd, level, info, 1); err != nil {
			return fmt.Errorf("ask for the destinations of datagrams: %w", err)
		}
	}
	if o.ProbeMTU {
		_ = unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_PROBE)
		if s.family == unix.AF_INET6 { // IPv4 through the same socket.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		}
	}
	if o.Coalesce {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}
	if o.Refusals {
		if err := s.queueErrors(fd, true); err != nil {
			return fmt.Errorf("ask for refused datagrams: %w", err)
		}
		s.refusals.Store(true)
	}
	// A kernel that does not know UDP_SEGMENT would send a message as one datagram.
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.segments.Store(err == nil)
	return nil
}

// queueErrors has the kernel report refused datagrams, which it keeps in a queue as
// well (IP_RECVERR, see ip(7)). Off empties the queue.
func (s *system) queueErrors(fd int, on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_RECVERR, 0
	if s.family == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if on {
		value = 1
	}
	return unix.SetsockoptInt(fd, level, option, value)
}

// Connect connects the socket to a peer: nothing else is received from then on, and
// datagrams need no receiver. Datagrams of others that have arrived can still be read.
// It must not be called while another goroutine writes. It exists on Linux only.
func (c *Conn) Connect(to Endpoint) error {
	var errno syscall.Errno
	err := c.system.raw.Control(func(fd uintptr) {
		if errno = connect(fd, &to); errno == 0 && c.system.refusals.Swap(false) {
			_ = c.system.queueErrors(int(fd), false)
		}
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	c.connected = true
	return nil
}

func (c *Conn) read() (*Batch, error) {
	return c.take(c.system.raw.Read(c.system.tryRead))
}

// TryRead is Read without waiting: it returns nil and no error if no datagram has
// arrived. It exists on Linux only, as [Poller] does.
func (c *Conn) TryRead() (*Batch, error) {
	return c.take(c.system.raw.Control(c.system.once))
}

// take returns the result of receive, unless the socket could not be used at all.
func (c *Conn) take(err error) (*Batch, error) {
	s := &c.system
	batch, failed := s.batch, s.err
	s.batch, s.err = nil, nil
	if err != nil {
		return nil, err
	}
	return batch, failed
}

// receive is called when the socket may be readable. It returns false if it was
// not, for the runtime to wait. Memory is borrowed only here: sockets are many, and
// most are idle.
func (c *Conn) receive(fd uintptr) bool {
	s := &c.system
	b := batches.Get().(*Batch)
	n, errno := s.calls.receive(fd, b.memory.messages[:])
	if errno == 0 {
		b.split(n)
		s.batch = b
		return true
	}
	b.Release()
	if s.refusals.Load() {
		// The socket counts as readable while its queue has errors, of which this is
		// one, or of which a write has returned one.
		_ = s.queueErrors(int(fd), false)
		_ = s.queueErrors(int(fd), true)
	}
	if errno == unix.EAGAIN {
		return false
	}
	s.err = os.NewSyscallError("recvmmsg", errno)
	return true
}

// IsTooLong reports whether an error of TryWrite means that a datagram was too long
// for the link. Systems other than Linux do not tell.
func IsTooLong(err error) bool {
	return errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL)
}
