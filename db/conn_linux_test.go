package db

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lib/pq waits for a vanished peer as long as the kernel does.
func TestDialer_BoundsTheWaitForAVanishedPeer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dialer{}.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{
		unix.TCP_USER_TIMEOUT: int(userTimeout.Milliseconds()),
		unix.TCP_KEEPIDLE:     int(keepAliveIdle.Seconds()),
		unix.TCP_KEEPINTVL:    int(keepAliveInterval.Seconds()),
		unix.TCP_KEEPCNT:      keepAliveCount,
	} {
		var got int
		var getErr error
		err := raw.Control(func(fd uintptr) {
			got, getErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option)
		})
		if err != nil || getErr != nil || got != want {
			t.Errorf("option %d is %d, want %d (%v, %v)", option, got, want, err, getErr)
		}
	}
}
