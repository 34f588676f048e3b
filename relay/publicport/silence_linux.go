package publicport

import (
	"math"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// silenceOf asks the system how active a player is. It costs a system call, and a
// player's bytes nothing. One whose connection has ended precedes all others.
func silenceOf(c *net.TCPConn) silence {
	ended := silence{since: math.MaxInt64}
	raw, err := c.SyscallConn()
	if err != nil {
		return ended
	}
	var info *unix.TCPInfo
	if controlErr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); controlErr != nil || err != nil {
		return ended
	}
	return silence{
		spoken: info.Bytes_received > 0,
		since:  time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond,
	}
}
