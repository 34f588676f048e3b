//go:build unix && !linux

package udpsock

import (
	"net"
	"os"
	"syscall"
)

// reader reads a connected socket, borrowing a buffer only when there is
// something to read. One goroutine may use it.
type reader struct {
	raw    syscall.RawConn
	buffer *buffer
	err    error
	try    func(fd uintptr) bool // Made once: a closure for each read would be garbage.
}

func newReader(c *net.UDPConn) (*reader, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &reader{raw: raw}
	r.try = r.read
	return r, nil
}

// next waits for a datagram and returns it.
func (r *reader) next() (*buffer, error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, err
	}
	b := r.buffer
	r.buffer = nil
	return b, r.err
}

// read is called when the socket may be readable; false has the runtime wait
// until it is.
func (r *reader) read(fd uintptr) bool {
	b := borrow()
	for {
		n, err := syscall.Read(int(fd), b.whole[:])
		switch err {
		case nil:
			b.data = b.whole[:n]
			r.buffer, r.err = b, nil
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.release()
			return false
		default:
			b.release()
			r.err = os.NewSyscallError("read", err)
			return true
		}
	}
}
