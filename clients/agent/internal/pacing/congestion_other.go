//go:build !linux

package pacing

import "syscall"

// setCongestionControl does nothing: only Linux has a congestion control for each
// socket.
func setCongestionControl(_, _ string, _ syscall.RawConn) error { return nil }
