//go:build !linux

package agent

import "syscall"

// chooseCongestion has nothing to choose: only Linux has a congestion control for each
// socket.
func chooseCongestion(_, _ string, _ syscall.RawConn) error { return nil }
