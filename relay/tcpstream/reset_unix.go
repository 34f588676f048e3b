//go:build unix

package tcpstream

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// wasReset reports whether the peer of a connection has reset it, which nobody notices
// who does not read or write.
func wasReset(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	reset := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		reset = err == nil && n > 0 && poll[0].Revents&unix.POLLERR != 0
	})
	return err != nil || reset
}
