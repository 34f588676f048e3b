package agent

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// congestionControl is one that paces what it sends by the bandwidth it has
// measured. The usual ones send until a queue on the way overflows: at home that
// is the modem's, and every game's packets then wait in it behind one download.
const congestionControl = "bbr"

// chooseCongestion chooses the congestion control of a socket to a tunnel server.
func chooseCongestion(_, _ string, socket syscall.RawConn) error {
	return socket.Control(func(fd uintptr) {
		// A kernel that has none, or does not let this user choose, goes on with
		// its own: slower is better than not at all.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestionControl)
	})
}
