//go:build !linux

package db

import "syscall"

// setUserTimeout does nothing: TCP_USER_TIMEOUT is Linux's own, elsewhere keepalive probes and the
// kernel's retransmission limit must do.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
