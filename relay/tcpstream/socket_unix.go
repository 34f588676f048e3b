//go:build unix

package tcpstream

import (
	"os"
	"syscall"
)

// canPoll says that a Socket can be read without waiting.
const canPoll = true

// tryRead reads what is there and does not wait for more.
func (s *Socket) tryRead(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), s.into)
		switch err {
		case nil:
			s.n, s.err = n, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			s.n, s.err = 0, errWouldBlock
		default:
			s.n, s.err = 0, os.NewSyscallError("read", err)
		}
		return true
	}
}
