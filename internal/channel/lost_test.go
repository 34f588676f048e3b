package channel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestLost_TellsABrokenConnectionFromOtherEnds(t *testing.T) {
	of := func(op string, number syscall.Errno) error {
		return fmt.Errorf("ping: %w", &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, number)})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{of("write", syscall.EPIPE), true},
		{of("read", syscall.ECONNRESET), true},
		{of("read", syscall.EHOSTUNREACH), true},
		{of("write", syscall.Errno(10053)), true},
		{fmt.Errorf("read: %w", net.ErrClosed), true},
		{io.ErrUnexpectedEOF, true},
		{&websocket.CloseError{Code: websocket.CloseAbnormalClosure, Text: io.ErrUnexpectedEOF.Error()}, true},
		{of("dial", syscall.EHOSTUNREACH), false},
		{of("dial", syscall.ECONNREFUSED), false},
		{&websocket.CloseError{Code: channel.CloseRestarting}, false},
		{context.DeadlineExceeded, false},
		{errors.New("the peer sent a binary message"), false},
		{nil, false},
	} {
		if got := channel.Lost(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
