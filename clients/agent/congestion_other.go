//go:build !linux

package agent

import "syscall"

// pace has nothing to choose: only Linux has a congestion control for each
// socket.
func pace(_, _ string, _ syscall.RawConn) error { return nil }
