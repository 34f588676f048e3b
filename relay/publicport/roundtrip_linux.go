package publicport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// roundTripOf asks the system for the smoothed round trip of a connection; 0: it is not known.
func roundTripOf(c *net.TCPConn) (trip time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	// An error means that the connection has ended.
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			trip = time.Duration(info.Rtt) * time.Microsecond
		}
	})
	return trip
}
