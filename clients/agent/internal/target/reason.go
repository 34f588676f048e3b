package target

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Reason describes for people why a connection could not be made or was lost. It
// leaves out the addresses of both ends, which the text around it names.
func Reason(err error) string {
	var timeout net.Error
	var dns *net.DNSError
	var number syscall.Errno
	switch {
	case errors.As(err, &dns):
		return "its name cannot be resolved"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	case errors.As(err, &number):
		return number.Error()
	default:
		return err.Error()
	}
}
