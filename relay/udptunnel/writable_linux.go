package udptunnel

import "golang.org/x/sys/unix"

// writable reports whether a TCP socket takes inlineLimit bytes without waiting.
// Linux calls one writable while a third of its buffer is free, and less than
// half of TCP_NOTSENT_LOWAT, where that is set, waits to be sent: the smallest
// third there is, after a handshake with an MSS of 1,460 bytes, is 15 kB with
// what the kernel adds to segments counted in.
func writable(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1 && fds[0].Revents == unix.POLLOUT
}
