package pacing

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// congestionControl paces what it sends by the bandwidth that it measures. Loss-based
// ones send until a queue on the path overflows: at home that is the modem's, and
// every game's packets then wait in it behind one download.
const congestionControl = "bbr"

// setCongestionControl chooses the congestion control of a socket to a tunnel server.
func setCongestionControl(_, _ string, socket syscall.RawConn) error {
	return socket.Control(func(fd uintptr) {
		// A kernel that lacks it, or does not let this user choose it, keeps its
		// default: slower, but it works.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestionControl)
	})
}
