package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// splices reports whether the kernel can move bytes from one socket to another.
const splices = true

// spliceFrom is the number of bytes from which it is worth the kernel's while.
const spliceFrom = 16 << 10

// available is how many bytes of the stream can be read now.
func (r *Reader) available() int {
	var n int
	err := r.raw.Control(func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); err != nil {
			n = 0 // Reading says why.
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// spliceable is how many bytes the next message can have whose bytes do not pass
// through this program; 0: that is not worth it.
func (s *stream) spliceable() int {
	if !s.conn.frames.plain || !s.reader.pools.busy() {
		return 0
	}
	if n := s.reader.available(); n >= spliceFrom {
		return min(n, wire.MaxStreamMessage)
	}
	return 0
}

// splice writes a binary message of n bytes that are there to be read from a
// socket. If it fails the peer waits for the rest of a message, hence the data
// connection is of no use any more.
func (f *frames) splice(from *net.TCPConn, n int) error {
	header := wire.AppendFrame(make([]byte, 0, wire.MaxFrameHeader), f.header(wire.OpBinary, n))
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.socket.writeMore(header); err != nil {
		return err
	}
	return spliced(f.socket.TCPConn, from, int64(n))
}

// spliceOut moves the rest of the current frame's payload, which has not been
// read, to a socket. After an error there is no telling how much of it is gone.
func (f *frames) spliceOut(to *net.TCPConn) (int, error) {
	n := f.pending()
	f.giveBack()
	f.spliced = true
	f.offset = f.frame.Length
	if f.frame.Final {
		f.message = wire.OpContinuation
	}
	return int(n), spliced(to, f.socket.TCPConn, n)
}

// spliced moves n bytes within the kernel.
func spliced(to, from *net.TCPConn, n int64) error {
	moved, err := to.ReadFrom(&io.LimitedReader{R: from, N: n})
	if err == nil && moved < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("splice: %w", err)
	}
	return nil
}

// writeMore writes what more will follow at once: it does not leave alone.
func (s *Socket) writeMore(p []byte) error {
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			n, err := unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch {
			case err == nil:
				p = p[n:]
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			default:
				failed = os.NewSyscallError("sendmsg", err)
				return true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
