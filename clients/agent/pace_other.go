//go:build !linux

package agent

import "syscall"

// canPace is false: elsewhere than on Linux a socket has no rate to limit.
const canPace = false

func newPacedSocket(syscall.RawConn) pacedSocket { return nil }
