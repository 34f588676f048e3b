//go:build unix

package tcpstream

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Reader reads a socket, borrowing a buffer only when there is something to
// read: thousands of silent players cost no buffers. One goroutine may use it.
type Reader struct {
	raw    syscall.RawConn
	pools  pools
	buffer *Buffer
	most   int // Bytes to read at once; 0: as many as fit.
	err    error
	try    func(fd uintptr) bool // Made once: a closure for each read would be garbage.
}

func newReader(s socket, small, large *sync.Pool) (*Reader, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	r := &Reader{raw: raw, pools: newPools(small, large)}
	r.try = r.read
	return r, nil
}

// Next waits for data and returns it, at the end of a stream (and for an empty
// datagram) with no bytes. It returns at most as many bytes as said, or any number for
// 0. A read deadline set on the socket holds.
func (r *Reader) Next(most int) (*Buffer, error) {
	r.most = most
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	buffer := r.buffer
	r.buffer = nil
	return buffer, r.err
}

// read is called when the socket may be readable; false makes the runtime wait
// until it is.
func (r *Reader) read(fd uintptr) bool {
	b := borrow(r.pools.next)
	for {
		n, err := syscall.Read(int(fd), b.room[:atMost(len(b.room), r.most)])
		switch err {
		case nil:
			b.Data = b.room[:n]
			r.pools.adapt(b)
			r.buffer, r.err = b, nil
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.Release()
			return false
		default:
			b.Release()
			r.err = os.NewSyscallError("read", err)
			return true
		}
	}
}
