//go:build unix && !linux

package udpsock

import (
	"net"
	"os"
	"syscall"
)

// reader reads a connected socket, borrowing memory only when there is something to
// read. One goroutine may use it.
type reader struct {
	raw   syscall.RawConn
	batch *Batch
	n     int
	err   error
	try   func(fd uintptr) bool // Made once: a closure for each read would be garbage.
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

// next waits for a datagram and returns the batch whose memory holds it, and its
// length.
func (r *reader) next() (*Batch, int, error) {
	if err := r.raw.Read(r.try); err != nil {
		return nil, 0, err
	}
	b := r.batch
	r.batch = nil
	return b, r.n, r.err
}

// read is called when the socket may be readable. It returns false if it was not,
// for the runtime to wait.
func (r *reader) read(fd uintptr) bool {
	b := batches.Get().(*Batch)
	for {
		n, err := syscall.Read(int(fd), b.memory.data[:])
		switch err {
		case nil:
			r.batch, r.n, r.err = b, n, nil
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
