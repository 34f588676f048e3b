package channel

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/gorilla/websocket"
)

// brokenConnection are the errors of a connection that has stopped working, at either
// end or in between. Windows has its own numbers for what POSIX calls ECONNRESET, and
// package syscall's constants of those names do not match them. No other system uses
// these numbers.
var brokenConnection = []error{
	syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH,
	syscall.Errno(10050), // WSAENETDOWN
	syscall.Errno(10051), // WSAENETUNREACH
	syscall.Errno(10052), // WSAENETRESET
	syscall.Errno(10053), // WSAECONNABORTED
	syscall.Errno(10054), // WSAECONNRESET
	syscall.Errno(10065), // WSAEHOSTUNREACH
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
}

// Lost reports whether err means that an established connection broke, as when a
// machine wakes up or changes networks, and not that the peer ended it or that it could
// not be made.
func Lost(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	if websocket.IsCloseError(err, websocket.CloseAbnormalClosure) {
		return true
	}
	for _, broken := range brokenConnection {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}
