package pacing

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCongestionControl_ChoosesWhereTheKernelOffersIt(t *testing.T) {
	allowed, err := os.ReadFile("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
	if err != nil {
		t.Skip(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := (&net.Dialer{Control: setCongestionControl}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var chosen string
	var readErr error
	if err := raw.Control(func(fd uintptr) {
		chosen, readErr = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	if slices.Contains(strings.Fields(string(allowed)), congestionControl) && strings.TrimRight(chosen, "\x00") != congestionControl {
		t.Errorf("the socket has %q", chosen)
	}
}
