//go:build !linux

package db

import "syscall"

// setUserTimeout does nothing: TCP_USER_TIMEOUT exists on Linux only. Elsewhere, keepalive probes and
// the kernel's retransmission limit take its place.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
