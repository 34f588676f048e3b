package agent

import (
	"cmp"
	"math"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canPace says that the system tells of its connections and limits them.
const canPace = true

// linuxSocket is a TCP socket of Linux's.
type linuxSocket struct{ raw syscall.RawConn }

func newPacedSocket(raw syscall.RawConn) pacedSocket { return linuxSocket{raw} }

// inquiry asks the kernel for a socket's TCP_INFO. The pacer asks thousands of
// idle sockets again and again, which must make no garbage.
type inquiry struct {
	info unix.TCPInfo
	err  error
	ask  func(fd uintptr) // Made once.
}

var inquiries = sync.Pool{New: func() any {
	q := new(inquiry)
	q.ask = func(fd uintptr) {
		q.info = unix.TCPInfo{} // Of which an old kernel fills less.
		size := uint32(unsafe.Sizeof(q.info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_INFO,
			uintptr(unsafe.Pointer(&q.info)), uintptr(unsafe.Pointer(&size)), 0)
		q.err = nil
		if errno != 0 {
			q.err = os.NewSyscallError("getsockopt", errno)
		}
	}
	return q
}}

func (s linuxSocket) read() (reading, error) {
	q := inquiries.Get().(*inquiry)
	defer inquiries.Put(q)
	// A closed socket says so here, which is how the pacer lets go of it.
	if err := s.raw.Control(q.ask); err != nil || q.err != nil {
		return reading{}, cmp.Or(err, q.err)
	}
	info := &q.info
	r := reading{
		// What came behind a loss is not acknowledged before that is repaired.
		arrived: info.Bytes_acked + uint64(info.Sacked)*uint64(info.Snd_mss),
		waiting: info.Notsent_bytes > 0,
		blocked: time.Duration(info.Rwnd_limited) * time.Microsecond,
		trip:    time.Duration(info.Rtt) * time.Microsecond,
		packet:  int(info.Snd_mss),
	}
	if info.Min_rtt != math.MaxUint32 { // None measured yet.
		r.least = time.Duration(info.Min_rtt) * time.Microsecond
	}
	return r, nil
}

func (s linuxSocket) limit(bytesPerSecond float64) error {
	value := -1 // No limit.
	if bytesPerSecond > 0 {
		value = int(min(bytesPerSecond, math.MaxInt32))
	}
	var optErr error
	if err := s.raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, value)
	}); err != nil {
		return err
	}
	return optErr
}
