//go:build !unix

package tcpstream

import "syscall"

// wasReset reports whether the peer of a connection has reset it. Here that is found
// with the next read or write.
func wasReset(syscall.Conn) bool { return false }
