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

// splices reports whether the kernel can move bytes from one socket to another.
const splices = true

// A message is spliced if it has at least spliceFrom bytes; fewer are not worth the
// kernel's while. It has at most spliceMost, which leaves room in the receiver's
// pipe, of as many pages, for those that are cut on the way: it is moved at once.
const (
	spliceFrom = 16 << 10
	spliceMost = pipeSize * 7 / 8
)

// errUnspliced means that nothing has been moved, for want of a pipe or since a
// socket is not made for it: what there is has to be read.
var errUnspliced = errors.New("tcpstream: not to be spliced")

// splicer moves bytes from one socket to another within the kernel, through a
// pipe that it borrows once there is something to move and returns when that is
// gone. One goroutine uses it.
type splicer struct {
	from, to syscall.RawConn
	pipe     *pipe
	want     int    // How much to take, at most,
	taken    int    // and how much it was.
	header   []byte // What precedes that where it goes, as far as it is left.
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
			return errUnspliced
		}
	}
	return nil
}

// begin puts a few bytes in front of what is taken next, and reports whether there
// is a pipe for that.
func (s *splicer) begin(b []byte) bool {
	if s.borrow() != nil {
		return false
	}
	n, err := unix.Write(s.pipe.in, b) // There is room: the pipe is empty.
	if err != nil || n < len(b) {
		s.giveBack()
		return false
	}
	s.pipe.holds = n
	return true
}

// take waits for bytes, takes some of them, at most want, and returns how many.
// That is none if there is nothing yet to follow what begin was given. It fails
// with io.ErrUnexpectedEOF if no more will come, and with errUnspliced.
func (s *splicer) take(want int) (int, error) {
	s.want, s.taken, s.err = want, 0, nil
	if err := s.from.Read(s.fill); err != nil {
		s.err = err
	}
	if s.err != nil {
		s.giveBack()
	}
	return s.taken, s.err
}

// tryFill is called when there may be bytes to take; false has the runtime wait
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
				return true // What precedes does not wait.
			}
			s.giveBack()
			return false
		case errors.Is(err, unix.EINVAL):
			s.err = errUnspliced
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

// give passes on a header and what was taken. After an error the rest of that is
// lost.
func (s *splicer) give(header []byte) error {
	s.header, s.err = header, nil
	if err := s.to.Write(s.drain); err != nil {
		s.err = err
	}
	s.giveBack()
	return s.err
}

// tryDrain is called when there may be room for more; false has the runtime wait
// for some.
func (s *splicer) tryDrain(fd uintptr) bool {
	for len(s.header) > 0 {
		// It does not leave alone.
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

// giveBack returns the pipe.
func (s *splicer) giveBack() {
	if s.pipe != nil {
		pipes.giveBack(s.pipe)
		s.pipe = nil
	}
}

// splice waits for what the local connection says, writes it as one binary message,
// and returns how much it was. The length of the message is said when the bytes are
// in the pipe: nothing that happens to the local connection leaves it half said.
// An error with some bytes is one of the data connection, and one without is one of
// the local connection, or errUnspliced.
func (s *stream) splice() (int, error) {
	f := s.conn.frames
	if s.in == nil {
		var err error
		if s.in, err = newSplicer(s.reader.raw, f.socket.TCPConn); err != nil {
			return 0, err
		}
	}
	n, err := s.in.take(spliceMost)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return 0, errUnspliced // It is there to be read again, unlike an error.
	case err != nil:
		return 0, err
	case n < spliceFrom:
		s.reader.pools.calm()
	}
	s.touch()
	f.writing.Lock()
	defer f.writing.Unlock()
	return n, s.in.give(wire.AppendFrame(f.space[:0], f.header(wire.OpBinary, n)))
}

// spliceOut moves some of the pending payload to the stream's local connection,
// and returns how much. With errUnspliced that is nothing. Any other error with some
// moved is one of the local connection, and one with none of the data connection.
func (s *stream) spliceOut() (int, error) {
	f := s.conn.frames
	if s.out == nil {
		var err error
		if s.out, err = newSplicer(f.socket.raw, s.local); err != nil {
			return 0, err
		}
	}
	n, want := len(f.rest), f.pending()
	if n > 0 && !s.out.begin(f.rest) {
		return 0, errUnspliced
	}
	taken, err := s.out.take(want)
	if err != nil {
		return 0, err
	}
	f.rest = nil
	f.giveBack()
	n += taken
	f.spliced = true
	f.passed(int64(n))
	return n, s.out.give(nil)
}
