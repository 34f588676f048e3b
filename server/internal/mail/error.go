package mail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"

	"github.com/wneessen/go-mail"
)

// Error is why a mail was not sent.
type Error struct {
	Message string // A sentence for admins.
	Cause   error  // Of this machine or the network, for logs; nil if the server refused.
}

// Error returns the sentence and the cause. There is nothing in it that the server said but codes: servers
// quote what they refuse.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s %v", e.Message, e.Cause)
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Reason returns the sentence of an *Error, and a general one for other errors.
func Reason(err error) string {
	var own *Error
	if errors.As(err, &own) {
		return own.Message
	}
	return "The mail could not be sent."
}

// failure translates an error of the client.
func failure(ctx context.Context, err error) *Error {
	var sending *mail.SendError
	var reply *textproto.Error
	var unreachable *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Message: "The mail server did not answer in time."}
	case ctx.Err() != nil:
		return &Error{Message: "The request ended before the mail was sent."}
	case errors.As(err, &sending) && sending.ErrorCode() > 0:
		return &Error{Message: "The mail server refused " + refused(sending.Reason) + code(sending.ErrorCode(), sending.EnhancedStatusCode())}
	case errors.As(err, &sending):
		return &Error{Message: "The connection to the mail server was lost."}
	case errors.As(err, &reply) && isLogin(reply.Code):
		return &Error{Message: "The mail server refused the user or the password" + code(reply.Code, "")}
	case errors.As(err, &reply):
		return &Error{Message: "The mail server refused the connection" + code(reply.Code, "")}
	case errors.As(err, new(textproto.ProtocolError)):
		return &Error{Message: "The mail server does not speak SMTP."}
	case errors.As(err, &unreachable) && unreachable.Op == "dial":
		return &Error{Message: "The mail server cannot be reached.", Cause: err}
	default:
		return &Error{Message: "There is no secure connection to the mail server, or no login that it and the panel know.", Cause: err}
	}
}

// refused says what a server refused.
func refused(reason mail.SendErrReason) string {
	switch reason {
	case mail.ErrSMTPMailFrom:
		return "the sender"
	case mail.ErrSMTPRcptTo:
		return "the recipient"
	default:
		return "the mail"
	}
}

func code(reply int, enhanced string) string {
	if enhanced != "" {
		enhanced = " " + enhanced
	}
	return fmt.Sprintf(" (%d%s).", reply, enhanced)
}

// isLogin reports whether a code is about a login (RFC 4954 section 6).
func isLogin(code int) bool {
	return code == 432 || code == 454 || code == 530 || code == 534 || code == 535 || code == 538
}
