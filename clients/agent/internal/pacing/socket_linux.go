package pacing

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

// supported reports that the system measures connections and can limit them.
const supported = true

// tcpSocket is a TCP socket on Linux.
type tcpSocket struct{ raw syscall.RawConn }

func newSocket(raw syscall.RawConn) socket { return tcpSocket{raw} }

// tcpInfo reads a socket's TCP_INFO into memory that is reused: thousands of idle
// sockets are read again and again, without garbage.
type tcpInfo struct {
	info    unix.TCPInfo
	err     error
	getsock func(fd uintptr) // Made once.
}

var tcpInfos = sync.Pool{New: func() any {
	q := new(tcpInfo)
	q.getsock = func(fd uintptr) {
		q.info = unix.TCPInfo{} // An old kernel fills only part of it.
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

func (s tcpSocket) read() (reading, error) {
	q := tcpInfos.Get().(*tcpInfo)
	defer tcpInfos.Put(q)
	// It fails for a closed socket, which is how the pacer drops it.
	if err := s.raw.Control(q.getsock); err != nil || q.err != nil {
		return reading{}, cmp.Or(err, q.err)
	}
	info := &q.info
	r := reading{
		// What arrives behind a loss is not acknowledged before that is repaired.
		delivered:       info.Bytes_acked + uint64(info.Sacked)*uint64(info.Snd_mss),
		backlogged:      info.Notsent_bytes > 0,
		receiverLimited: time.Duration(info.Rwnd_limited) * time.Microsecond,
		rtt:             time.Duration(info.Rtt) * time.Microsecond,
		packet:          int(info.Snd_mss),
	}
	if info.Min_rtt != math.MaxUint32 { // None measured yet.
		r.minRTT = time.Duration(info.Min_rtt) * time.Microsecond
	}
	return r, nil
}

func (s tcpSocket) limit(bytesPerSecond float64) error {
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
