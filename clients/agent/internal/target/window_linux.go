package target

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveWindow is how many bytes a local program may send before the agent has
// read them: enough for any local network. The kernel allows up to twice as many,
// the most that it can advertise with the window scale it chooses.
const receiveWindow = 1 << 20

// limitWindow bounds the receive window of a socket to a local program. Besides
// saving memory it avoids a deadlock observed on Linux 6.18: the sequence number of
// an acknowledgement may lie beyond the peer's window by as much as the unit of the
// window scale, which grows with the largest window. A peer whose window has closed
// meanwhile drops such a segment, and with it the window update that it carries. A
// game that writes before it reads, and the agent, then wait for each other. The
// unit for this window is 32 bytes, for the default ones up to 1 kB.
func limitWindow(network, _ string, socket syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	return socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, receiveWindow)
	})
}
