package tcpstream

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// Limit bounds how fast one direction of a stream passes. Any goroutine may call its
// methods, but only one at a time is in Wait.
type Limit interface {
	// Chunk returns how many bytes should pass at once, at least 1; 0: any number.
	Chunk() int
	// Wait waits until n bytes may pass, and returns false once the limit is closed. If
	// they may not at once, it calls blocks, and then what that returned; nil: neither. Blocks must not
	// block, or call the limit or another one of the same bandwidth.
	Wait(n int, blocks func() (over func())) bool
	// Close ends waits, those to come too. It may be called again.
	Close()
}

// Player is whom [Conn.Carry] carries, and how.
type Player struct {
	Conn *net.TCPConn // Required.
	// Open is the message that opens the stream. Required.
	Open wire.Control
	// Answered is called when the game's first bytes arrive; nil: not called. It is
	// called by Serve's goroutine and must not block.
	Answered func()
	// Upload and Download bound the bytes from the player and to the player; nil: no
	// bound. What waits is not read, so that its sender slows down. Carry closes them
	// when the player's connection breaks.
	Upload, Download Limit
	// Meter counts the bytes of each direction as they pass, and the player once the stream
	// is open; nil: nothing does.
	Meter *meter.Meter
}

// errLimitClosed means that bytes were not passed since their limit is closed.
var errLimitClosed = errors.New("tcpstream: the limit is closed")

// chunk is how many bytes should pass a limit at once; 0: any number.
func chunk(l Limit) int {
	if l == nil {
		return 0
	}
	return l.Chunk()
}

// resetCheck is how often a stream that waits is examined for a reset.
const resetCheck = 250 * time.Millisecond

// wait waits until a limit lets n bytes pass.
func (s *stream) wait(l Limit, n int) error {
	if l == nil {
		return nil
	}
	if !l.Wait(n, s.watch) {
		return errLimitClosed
	}
	return nil
}

// watchReset closes the limits when the player's connection or the data connection is
// reset, until stop is called. A timer for each chunk of a stream that need not wait
// would cost more than passing it.
func (s *stream) watchReset() (stop func()) {
	var (
		mu      sync.Mutex
		stopped bool
		timer   *time.Timer
	)
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(resetCheck, func() {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case stopped:
		case wasReset(s.local) || s.conn.frames.socket != nil && wasReset(s.conn.frames.socket):
			s.closeLimits()
		default:
			timer.Reset(resetCheck)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// atMost returns the lesser of a number of bytes and a chunk.
func atMost(n, chunk int) int {
	if chunk > 0 {
		return min(n, chunk)
	}
	return n
}

// mayFill reports whether a chunk is large enough to be spliced.
func mayFill(chunk int) bool { return chunk == 0 || chunk >= spliceMin }

// writeLocal writes data to the local connection, in chunks as the limit lets them pass.
func (s *stream) writeLocal(data []byte) error {
	for len(data) > 0 {
		n := atMost(len(data), chunk(s.download))
		if err := s.wait(s.download, n); err != nil {
			return err
		}
		written, err := s.local.Write(data[:n])
		s.meter.Download(written) // After an error too: the player has received them.
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// closeLimits ends the waits of a stream.
func (s *stream) closeLimits() {
	for _, l := range []Limit{s.upload, s.download} {
		if l != nil {
			l.Close()
		}
	}
}
