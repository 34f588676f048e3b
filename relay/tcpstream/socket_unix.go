//go:build unix

package tcpstream

import (
	"os"
	"syscall"
)

// polls reports whether a Socket can be read without waiting.
const polls = true

// tryRead reads what is there, and has nobody wait for more.
func (s *Socket) tryRead(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), s.into)
		switch err {
		case nil:
			s.n, s.err = n, nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			s.n, s.err = 0, errNothing
		default:
			s.n, s.err = 0, os.NewSyscallError("read", err)
		}
		return true
	}
}
