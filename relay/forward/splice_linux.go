package forward

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
// kernel's while. It has at most spliceMost, so that it fits a pipe with its
// header, which takes a page.
const (
	spliceFrom = 16 << 10
	spliceMost = pipeSize - 8<<10
)

// errNoPipe means that all pipes there may be are in use. Nothing has been moved.
var errNoPipe = errors.New("forward: no pipe left")

// splicer moves bytes from one socket to another within the kernel, through a
// pipe that it borrows once there is something to move and returns when that is
// gone. One goroutine uses it.
type splicer struct {
	from, to syscall.RawConn
	pipe     *pipe
	want     int  // How much to take, at most,
	taken    int  // and how much it was.
	more     bool // More will follow at once: what is sent does not leave alone.
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
			return errNoPipe
		}
	}
	return nil
}

// begin has a few bytes go in front of what is taken next, and reports whether
// there is a pipe for that.
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
// with io.ErrUnexpectedEOF if no more will come, and with errNoPipe.
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

// give passes on what was taken. After an error the rest of that is lost.
func (s *splicer) give(more bool) error {
	s.more, s.err = more, nil
	if err := s.to.Write(s.drain); err != nil {
		s.err = err
	}
	if s.err != nil {
		s.giveBack()
	}
	return s.err
}

// tryDrain is called when there may be room for more; false has the runtime wait
// for some.
func (s *splicer) tryDrain(fd uintptr) bool {
	flags := unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	if s.more {
		flags |= unix.SPLICE_F_MORE
	}
	for s.pipe.holds > 0 {
		n, err := unix.Splice(s.pipe.out, nil, int(fd), nil, s.pipe.holds, flags)
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

// available is how many bytes can be read from a socket now.
func available(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		return 0 // Reading says why.
	}
	return n
}

// splice writes a binary message of at most n bytes, which are there to be read
// from the stream's local connection. It leaves them to be copied where that is not
// possible. After an error the data connection is of no use any more: the peer
// waits for the rest of a message.
func (s *stream) splice(n int) error {
	f := s.conn.frames
	if s.in == nil {
		var err error
		if s.in, err = newSplicer(s.reader.raw, f.socket.TCPConn); err != nil {
			return err
		}
	}
	defer s.in.giveBack()
	f.writing.Lock()
	defer f.writing.Unlock()
	n = min(n, spliceMost)
	if !s.in.begin(wire.AppendFrame(f.space[:0], f.header(wire.OpBinary, n))) {
		s.copies = true
		return nil
	}
	for begun := false; n > 0; begun = true {
		taken, err := s.in.take(n)
		if err != nil && !begun {
			s.copies = true // Reading tells what it is, if it is more than that.
			return nil
		}
		if err != nil {
			return err
		}
		n -= taken
		if err := s.in.give(n > 0); err != nil {
			return err
		}
		s.conn.counters.Sent.Add(uint64(taken))
	}
	return nil
}

// spliceOut moves some of the pending payload to the stream's local connection,
// and returns how much. With errNoPipe that is nothing. Any other error with some
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
		return 0, errNoPipe
	}
	f.rest = nil
	f.giveBack()
	taken, err := s.out.take(want)
	if err != nil {
		return 0, err
	}
	defer s.out.giveBack()
	n += taken
	f.spliced = true
	f.passed(int64(n))
	return n, s.out.give(false)
}
