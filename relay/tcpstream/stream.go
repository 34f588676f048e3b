// Package tcpstream carries one player's TCP bytes at a time over a data
// connection. Both ends of the tunnel use it: the tunnel server opens streams, the
// tunnel client accepts them.
//
// In come a data connection that has been upgraded to a WebSocket and, at each
// end, a TCP connection; out go their bytes, half-closes and resets. The caller of
// [Conn.Serve] owns the data connection and its goroutines: Serve returns when all
// of them have ended.
//
// An idle connection holds no buffers, only goroutine stacks and the state of TLS.
// Buffers are borrowed when there is something to read and returned once it is
// written.
package tcpstream

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// ErrUnused is returned by Carry when the data connection was dead before anything
// passed: the player is untouched and can be carried by another.
var ErrUnused = errors.New("tcpstream: the data connection was dead")

// ErrBroken is returned by Carry when the data connection ended under the
// stream. The player has been reset.
var ErrBroken = errors.New("tcpstream: the data connection broke")

// abortGrace is how long the peer may take to confirm the end of a broken stream. A
// peer whose own player or game does not read may never do so.
const abortGrace = 5 * time.Second

// Conn is one end of a stream data connection. It carries one stream at a
// time. [Conn.Serve] reads it as long as it lives; the bytes in the other
// direction are moved by Carry at the tunnel server, and by a goroutine for
// each stream at the tunnel client.
//
// One goroutine writes to the WebSocket at any time: while a stream's pump runs
// it is the pump, otherwise it is Serve.
type Conn struct {
	frames   *frames
	counters *Counters // Of streams that have none of their own.
	accept   func(open wire.Control) (Game, error)
	silent   func(game net.Addr) // nil: not called.

	pumps sync.WaitGroup // Of the tunnel client; never more than one.

	mu     sync.Mutex
	dead   bool
	stream *stream // nil while idle.
}

// end is how one direction of a stream ended.
type end int

const (
	open end = iota
	finished
	broken
)

type stream struct {
	conn     *Conn
	local    *net.TCPConn // nil at a client that could not reach the game.
	reader   *Reader
	left     func() // Called once local is closed; nil: not called.
	counters *Counters

	upload, download Limit         // At a tunnel server; nil: none.
	meter            *meter.Meter  // At a tunnel server; nil: none.
	watch            func() func() // watchReset.

	answered func() // Called with the first bytes of the peer; nil after it. Guarded by conn.mu.

	// in is used by the pump and out by Serve; nil until there is much to move.
	in, out *splicer

	pumped chan struct{} // Closed when nothing more will be pumped.
	done   chan struct{} // Closed when the stream is over or its connection dead.

	// Guarded by conn.mu.
	sent, got end
	moved     bool // Something passed: another data connection cannot carry the player.
	aborted   bool // The local connection was reset; what still arrives is discarded.
	over      bool // The tunnel client has finished with it.
	grace     *time.Timer
}

// NewServer makes the tunnel server's end of a data connection, which opens streams.
// The bytes it carries are counted in counters.
func NewServer(conn net.Conn, counters *Counters) *Conn {
	return newConn(newFrames(conn, false), counters, nil)
}

// A Game is a tunnel client's connection to the game of a stream.
type Game struct {
	Conn *net.TCPConn
	// Left is called once Conn is closed.
	Left func()
	// Counters count the bytes of the stream.
	Counters *Counters
}

// NewClient makes the tunnel client's end of a data connection. Accept is called for
// every stream that the peer opens; an error resets the player. Calls do not overlap.
func NewClient(conn net.Conn, accept func(open wire.Control) (Game, error)) *Conn {
	return newConn(newFrames(conn, true), new(Counters), accept)
}

// OnSilent sets a function to be called with the address of a game that ended a stream
// before it had sent anything, while its player stayed. It is for tunnel clients, and
// must be called before Serve. The function must not block.
func (c *Conn) OnSilent(silent func(game net.Addr)) { c.silent = silent }

func newConn(f *frames, counters *Counters, accept func(wire.Control) (Game, error)) *Conn {
	return &Conn{frames: f, counters: counters, accept: accept}
}

// Close ends the data connection, and the stream it carries with a reset. It
// does not wait: Serve does.
func (c *Conn) Close() {
	c.mu.Lock()
	c.dead = true
	// The local connection too: Serve may be blocked on a player who does not read,
	// and the end of the WebSocket would not wake it.
	if s := c.stream; s != nil && (s.moved || c.accept != nil) {
		s.abortLocked()
	}
	c.mu.Unlock()
	c.frames.close()
}

// Retire closes an idle data connection with a close frame.
func (c *Conn) Retire() {
	c.writeClose(websocket.CloseNormalClosure, "")
	c.Close()
}

// Serve reads the data connection until it ends, waits for the stream's end at
// this side, and returns why it ended: a *websocket.CloseError with
// CloseNormalClosure where the peer retired it.
func (c *Conn) Serve() error {
	err := c.read()
	c.frames.release()
	if errors.Is(err, wire.ErrMalformed) {
		c.writeClose(websocket.CloseProtocolError, "protocol error")
	}
	c.Close()
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if s != nil {
		if s.local != nil {
			// Wakes the pump of a player who stays.
			_ = s.local.SetReadDeadline(time.Unix(1, 0))
		}
		<-s.pumped
		s.stopGrace()
		close(s.done)
	}
	c.pumps.Wait()
	if s != nil {
		s.leave()
	}
	return err
}

func (c *Conn) read() error {
	for {
		kind, data, err := c.frames.next()
		if err != nil {
			return err
		}
		if kind == wire.OpBinary {
			err = c.deliver(data)
		} else {
			err = c.controlOnGoroutine(data)
		}
		if err != nil {
			return err
		}
	}
}

// deliver writes bytes of a message to the stream's local connection: data, or what
// is pending if data is nil.
func (c *Conn) deliver(data []byte) error {
	c.mu.Lock()
	s := c.stream
	if s == nil || s.got != open {
		c.mu.Unlock()
		return fmt.Errorf("%w: bytes outside a stream", wire.ErrMalformed)
	}
	s.moved = true
	discard := s.aborted
	answered := s.answered
	s.answered = nil
	c.mu.Unlock()
	if answered != nil {
		answered()
	}
	if data == nil && !discard && mayFill(chunk(s.download)) {
		n, err := s.spliceOut()
		s.counters.Received.Add(uint64(n))
		switch {
		case n > 0 && err != nil:
			return s.abort()
		case !errors.Is(err, errNotSpliced):
			return err
		}
	}
	if data == nil {
		var err error
		if data, err = c.frames.take(); err != nil {
			return err
		}
	}
	s.counters.Received.Add(uint64(len(data)))
	if discard {
		return nil
	}
	if err := s.writeLocal(data); err != nil {
		return s.abort()
	}
	return nil
}

// controlOnGoroutine calls control on a goroutine of its own, whose stack is freed
// with it: decoding a message and dialling a game grow a stack that Serve would keep
// for as long as the data connection lives.
func (c *Conn) controlOnGoroutine(data []byte) error {
	acted := make(chan error)
	go func() { acted <- c.control(data) }()
	return <-acted
}

// control acts on a text message.
func (c *Conn) control(data []byte) error {
	m, err := wire.DecodeControl(data)
	if err != nil {
		return err
	}
	switch {
	case m.Type == wire.ControlOpen && c.accept != nil:
		return c.opened(m)
	case m.Type == wire.ControlFin:
		return c.ended(finished)
	case m.Type == wire.ControlReset:
		return c.ended(broken)
	case m.Type == wire.ControlIdle && c.accept == nil:
		return c.idle()
	}
	return fmt.Errorf("%w: %s from the wrong end", wire.ErrMalformed, m.Type)
}

// ended notes that the peer will send no more of the stream.
func (c *Conn) ended(how end) error {
	c.mu.Lock()
	s := c.stream
	if s == nil {
		c.mu.Unlock()
		if how == broken && c.accept != nil {
			return nil // A reset of the previous stream, sent before our idle arrived.
		}
		return fmt.Errorf("%w: the end of no stream", wire.ErrMalformed)
	}
	if s.got == broken || s.got == how {
		c.mu.Unlock()
		return fmt.Errorf("%w: a second end of a stream", wire.ErrMalformed)
	}
	s.moved = true
	s.got = how
	if how == broken {
		s.abortLocked()
	} else if !s.aborted {
		// It fails if the local peer has reset the connection, which the pump detects
		// as well.
		_ = s.local.CloseWrite()
	}
	last := s.sent != open && c.accept != nil
	c.mu.Unlock()
	if last {
		<-s.pumped
		return s.finish()
	}
	return nil
}

func (c *Conn) write(t wire.ControlType) error {
	return c.writeControl(&wire.Control{Type: t})
}

func (c *Conn) writeControl(m *wire.Control) error {
	data, err := wire.AppendControl(nil, *m)
	if err != nil {
		return err
	}
	return c.frames.write(wire.OpText, data)
}

func (c *Conn) writeClose(code int, text string) {
	_ = c.frames.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = c.frames.write(wire.OpClose, websocket.FormatCloseMessage(code, text))
}
