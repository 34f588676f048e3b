package tcpstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// canSplice says that the kernel can move bytes from one socket to another.
const canSplice = true

// A message is spliced if it has at least spliceMin bytes; below that, copying is
// cheaper. It has at most spliceMax bytes, so that it fits the receiver's pipe, of
// as many pages, even where segments end within pages.
const (
	spliceMin = 16 << 10
	spliceMax = pipeSize * 7 / 8
)

// errNotSpliced means that nothing was moved, because there is no pipe or the socket
// cannot be spliced: the bytes must be read.
var errNotSpliced = errors.New("tcpstream: not to be spliced")

// splicer moves bytes from one socket to another within the kernel, through a pipe
// that it borrows while there is something to move. One goroutine uses it.
type splicer struct {
	from, to syscall.RawConn
	pipe     *pipe
	want     int    // The most bytes to take,
	taken    int    // and how many were taken.
	header   []byte // Written before them, as far as it is left.
	err      error

	fill, drain func(fd uintptr) bool // Made once: closures would be garbage.
}

func newSplicer(from syscall.RawConn, to *net.TCPConn) (*splicer, error) {
	raw, err := to.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	s := &splicer{from: from, to: raw}
	s.fill, s.drain = s.tryFill, s.tryDrain
	return s, nil
}

// borrow borrows the pipe.
func (s *splicer) borrow() error {
	if s.pipe == nil {
		if s.pipe = pipes.borrow(); s.pipe == nil {
			return errNotSpliced
		}
	}
	return nil
}

// begin puts bytes before those that are taken next, and reports whether it could.
func (s *splicer) begin(b []byte) bool {
	if s.borrow() != nil {
		return false
	}
	n, err := unix.Write(s.pipe.in, b) // There is room: the pipe is empty.
	if err != nil || n < len(b) {
		s.release()
		return false
	}
	s.pipe.holds = n
	return true
}

// take waits for bytes, takes at most want of them into the pipe and returns how
// many. After begin it does not wait, and may take none. Its errors include
// io.ErrUnexpectedEOF at the end of the stream, and errNotSpliced.
func (s *splicer) take(want int) (int, error) {
	s.want, s.taken, s.err = want, 0, nil
	if err := s.from.Read(s.fill); err != nil {
		s.err = err
	}
	if s.err != nil {
		s.release()
	}
	return s.taken, s.err
}

// tryFill is called when there may be bytes to take; false makes the runtime wait
// for some, without holding a pipe.
func (s *splicer) tryFill(fd uintptr) bool {
	if s.err = s.borrow(); s.err != nil {
		return true
	}
	for {
		n, err := unix.Splice(int(fd), nil, s.pipe.in, nil, s.want, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if s.pipe.holds > 0 {
				return true // The bytes of begin do not wait.
			}
			s.release()
			return false
		case errors.Is(err, unix.EINVAL):
			s.err = errNotSpliced
		case err != nil:
			s.err = os.NewSyscallError("splice", err)
		case n == 0:
			s.err = io.ErrUnexpectedEOF
		default:
			s.taken = int(n)
			s.pipe.holds += s.taken
		}
		return true
	}
}

// give writes a header and what was taken. After an error the rest is lost, and lost says
// how many bytes that is.
func (s *splicer) give(header []byte) (lost int, err error) {
	s.header, s.err = header, nil
	if err := s.to.Write(s.drain); err != nil {
		s.err = err
	}
	lost = s.pipe.holds
	s.release()
	return lost, s.err
}

// tryDrain is called when the socket may accept more; false makes the runtime wait
// until it does.
func (s *splicer) tryDrain(fd uintptr) bool {
	for len(s.header) > 0 {
		// MSG_MORE: the header leaves with the payload.
		n, err := unix.SendmsgN(int(fd), s.header, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			s.err = os.NewSyscallError("sendmsg", err)
			return true
		default:
			s.header = s.header[n:]
		}
	}
	for s.pipe.holds > 0 {
		n, err := unix.Splice(s.pipe.out, nil, int(fd), nil, s.pipe.holds, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			s.err = os.NewSyscallError("splice", err)
			return true
		default:
			s.pipe.holds -= int(n)
		}
	}
	return true
}

// release returns the pipe.
func (s *splicer) release() {
	if s.pipe != nil {
		pipes.release(s.pipe)
		s.pipe = nil
	}
}

// splice waits for bytes of the local connection, writes at most as many of them as
// said, or any number for 0, as one binary message and returns how many there were.
// The message's length is written once the bytes are in the pipe, so that no failure
// of the local connection leaves a message incomplete. An error with some bytes is one of the data connection; an error
// without is one of the local connection, or errNotSpliced.
func (s *stream) splice(most int) (int, error) {
	f := s.conn.frames
	if s.in == nil {
		var err error
		if s.in, err = newSplicer(s.reader.raw, f.socket.TCPConn); err != nil {
			return 0, err
		}
	}
	n, err := s.in.take(atMost(spliceMax, most))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return 0, errNotSpliced // Unlike an error, the end of the stream can be read again.
	case err != nil:
		return 0, err
	case n < spliceMin:
		s.reader.pools.useSmall()
	}
	if err := s.admit(n); err != nil {
		s.in.release()
		return 0, err
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	_, err = s.in.give(wire.AppendFrame(f.space[:0], f.header(wire.OpBinary, n)))
	return n, err
}

// spliceOut moves some of the pending payload to the stream's local connection and
// returns how many bytes. With errNotSpliced there are none. Any other error with
// some bytes moved is one of the local connection; an error without is one of the
// data connection.
func (s *stream) spliceOut() (int, error) {
	f := s.conn.frames
	if s.out == nil {
		var err error
		if s.out, err = newSplicer(f.socket.raw, s.local); err != nil {
			return 0, err
		}
	}
	n := len(f.rest)
	want := atMost(f.pending(), chunk(s.download))
	if n > 0 && !s.out.begin(f.rest) {
		return 0, errNotSpliced
	}
	taken, err := s.out.take(want)
	if err != nil {
		return 0, err
	}
	f.rest = nil
	f.release()
	n += taken
	f.spliced = true
	f.passed(int64(n))
	if err := s.wait(s.download, n); err != nil {
		s.out.release()
		return n, err
	}
	lost, err := s.out.give(nil)
	s.meter.Download(n - lost)
	return n, err
}
