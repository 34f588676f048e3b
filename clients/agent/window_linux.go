package agent

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// gameWindow is how many bytes a game may send ahead of what the agent has
// passed on: enough for any local network. The kernel allows up to twice as many,
// the most that can be announced in the unit it chooses for them.
const gameWindow = 1 << 20

// boundWindow bounds the receive window of a socket to a local program. Besides
// memory it spares the connection a standstill that Linux 6.18 was seen in: what
// a socket acknowledges may bear a number beyond the peer's window by as much as
// the unit in which its own is announced, which grows with the largest window;
// a peer whose window has closed meanwhile drops that, and with it the news that
// it may send. A game that sends before it reads on, and the agent, then wait for
// each other. The unit for this window is 32 bytes, for the usual ones up to 1 kB.
func boundWindow(network, _ string, socket syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	return socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, gameWindow)
	})
}
