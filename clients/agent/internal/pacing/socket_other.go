//go:build !linux

package pacing

import "syscall"

// supported is false: only Linux can limit the rate of a socket.
const supported = false

func newSocket(syscall.RawConn) socket { return nil }
