// Package channel is a channel of JSON messages over a WebSocket, used by both ends
// of the control channel and of a link: one writer, a bounded queue, liveness in both
// directions, and a reason for every end.
//
// Liveness: each end sends a ping every [Options.PingInterval], unless it is
// [Options.Lazy] and the peer does, and considers the peer dead once nothing has
// arrived for [Options.Deadline]. Since both ends do so, both detect a connection that
// is cut in one direction only. Parts of a message count: a large one on a slow line
// takes as long as it takes. With the default times the line must carry about 5 KiB a
// second of what this end sends: a third of the socket's send buffer, which the system
// doubles, must leave within [Options.WriteTimeout] before there is space for more. A
// message that arrives must make progress of 1 KiB a second.
//
// Large messages are compressed where the WebSocket has permessage-deflate (RFC 7692).
// An idle channel holds no memory for that.
//
// [Keep] reconnects such a channel.
package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Close codes of the control channel and of links, from the range that RFC 6455
// section 7.4.2 leaves to applications.
const (
	CloseTokenDead  = 4401 // The token or ticket was revoked: stop and say why.
	CloseDeleted    = 4404 // The device is deleted: stop and say why.
	CloseTakenOver  = 4409 // A newer connection of the same device took over: stand by.
	CloseFeatureOff = 4503 // Tunnels are switched off: come back later.
	CloseRestarting = websocket.CloseServiceRestart
)

// ErrSlow ends a channel whose peer reads too slowly: its queue is full.
var ErrSlow = errors.New("channel: the peer reads too slowly")

// ErrClosed is returned by Send once the channel is closing.
var ErrClosed = errors.New("channel: closed")

// closeGrace bounds the wait for the peer's answer to our close frame. Closing the
// socket earlier could reset the connection and lose the frame with the reason.
const closeGrace = time.Second

// Options tune a Conn. The zero value is ready for use.
type Options struct {
	PingInterval time.Duration // 0: 3 s.
	Deadline     time.Duration // The silence after which the peer counts as dead; 0: 9 s.
	// WriteTimeout is that of one message, or of a part of a larger one: 8 KiB, or up to
	// 64 KiB, a block of the compression. 0: the value of Deadline.
	WriteTimeout time.Duration
	Queue        int   // Messages waiting to be written; 0: 64.
	MaxMessage   int64 // Largest message accepted, in bytes, also after decompression; 0: 1 MiB.
	// Lazy omits a ping if the peer has sent one since the last was due: its pings and
	// our answers prove both ends alive.
	Lazy bool
}

func (o Options) withDefaults() Options {
	if o.PingInterval == 0 {
		o.PingInterval = 3 * time.Second
	}
	if o.Deadline == 0 {
		o.Deadline = 9 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = o.Deadline
	}
	if o.Queue == 0 {
		o.Queue = 64
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 1 << 20
	}
	return o
}

// Conn is one channel. Send and Close may be called from any goroutine; Receive
// and Wait belong to one reading goroutine, which must end with Wait.
type Conn struct {
	ws   *websocket.Conn
	opts Options

	queue   chan []byte
	pong    chan []byte // Holds the payload of a ping to answer.
	pinged  atomic.Bool // The peer has sent a ping since ours was due.
	pings   pings
	closing chan struct{} // Closed once an end is decided.
	written chan struct{} // Closed when the writer has ended.

	mu     sync.Mutex
	ended  bool
	code   int // Close code to send; 0 sends none.
	reason string
	err    error     // Why, where it was this end that decided.
	until  time.Time // When writing must be over, once ended.
}

// New makes a channel of an open WebSocket, which it owns from then on. Its writer
// goroutine runs until Wait.
func New(ws *websocket.Conn, opts Options) *Conn {
	opts = opts.withDefaults()
	c := &Conn{
		ws:      ws,
		opts:    opts,
		queue:   make(chan []byte, opts.Queue),
		pong:    make(chan []byte, 1),
		closing: make(chan struct{}),
		written: make(chan struct{}),
	}
	ws.SetReadLimit(opts.MaxMessage)
	ws.EnableWriteCompression(false) // See writeLarge.
	limitSendBuffer(ws.NetConn())
	ws.SetPingHandler(func(data string) error {
		c.extend()
		c.pinged.Store(true)
		// The writer answers. Written here, an answer that does not fit the socket's
		// buffer while a large message leaves would break the connection.
		select {
		case c.pong <- []byte(data):
		default: // The answer to the ping before stands for both.
		}
		return nil
	})
	ws.SetPongHandler(func(data string) error {
		c.extend()
		c.pings.answered(data, time.Now())
		return nil
	})
	c.extend()
	go c.write()
	return c
}

// Send queues a message. It never blocks: a full queue means that the peer does
// not read, and ends the channel with ErrSlow.
func (c *Conn) Send(message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("marshal %T: %w", message, err)
	}
	select {
	case <-c.closing:
		return ErrClosed
	default:
	}
	select {
	case c.queue <- data:
		return nil
	default:
		c.end(websocket.CloseTryAgainLater, "too slow", ErrSlow)
		return ErrSlow
	}
}

// Receive returns the next message. The error that ends a channel is the peer's
// *websocket.CloseError where it gave one; Close by this end makes it ErrClosed.
func (c *Conn) Receive() ([]byte, error) {
	for {
		kind, r, err := c.ws.NextReader()
		if err != nil {
			return nil, c.fail(err)
		}
		c.extend()
		select {
		case <-c.closing:
			// Read on only for the peer's close frame.
			if _, err := io.Copy(io.Discard, r); err != nil {
				return nil, c.fail(err)
			}
			continue
		default:
		}
		if kind != websocket.TextMessage {
			c.end(websocket.CloseUnsupportedData, "text messages only", errors.New("channel: the peer sent a binary message"))
			continue
		}
		data, err := c.readMessage(r)
		switch {
		case errors.Is(err, websocket.ErrReadLimit):
			c.end(websocket.CloseMessageTooBig, "the message is too large", err)
		case errors.Is(err, errTrickle):
			c.end(websocket.CloseTryAgainLater, "too slow", err)
		case err != nil:
			return nil, c.fail(err)
		default:
			return data, nil
		}
	}
}

// Close sends what is queued and then a close frame. It returns at once and may
// be called again; the first reason stands. The reason must fit a control frame
// (123 bytes, RFC 6455 section 5.5) and is cut to it.
func (c *Conn) Close(code int, reason string) {
	c.end(code, reason, ErrClosed)
}

// Closing is closed once an end is decided, by either side.
func (c *Conn) Closing() <-chan struct{} { return c.closing }

// Resume gives the peer another Deadline. A reading goroutine that was busy elsewhere
// calls it: messages that arrived meanwhile are still to be read.
func (c *Conn) Resume() { c.extend() }

// Wait reads until the channel has ended, closes the socket and waits for the
// writer. Without a Close before it, it waits for the peer. Only the reading
// goroutine may call it.
func (c *Conn) Wait() {
	for {
		if _, err := c.Receive(); err != nil {
			break
		}
	}
	<-c.written
}

func (c *Conn) extend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended { // Otherwise the writer sets the last deadline.
		// A socket that is closed fails the read that follows.
		_ = c.ws.SetReadDeadline(time.Now().Add(c.opts.Deadline))
	}
}

// end decides the channel's end; only the first decision counts.
func (c *Conn) end(code int, reason string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.code, c.reason, c.err = true, code, reason, err
	c.until = time.Now().Add(closeGrace)
	// A write to a peer that does not read must not hold the end up. If the part being
	// written takes several frames, each further one has the part's own deadline again.
	_ = c.ws.NetConn().SetWriteDeadline(c.until)
	close(c.closing)
}

// fail ends the channel after a read or write error and returns the error to
// report: the decision that came first.
func (c *Conn) fail(err error) error {
	c.end(0, "", err)
	_ = c.ws.Close() // The connection is unusable; its own error says less.
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Conn) write() {
	defer close(c.written)
	ping := time.NewTicker(c.opts.PingInterval)
	defer ping.Stop()
	for {
		select {
		case <-c.closing:
			c.writeClose()
			return
		default:
		}
		var err error
		select {
		case data := <-c.queue:
			err = c.writeMessage(data)
		case data := <-c.pong:
			err = c.writeControl(websocket.PongMessage, data)
		case <-ping.C:
			if c.pinged.Swap(false) && c.opts.Lazy {
				continue
			}
			err = c.writeControl(websocket.PingMessage, c.pings.next(time.Now()))
		case <-c.closing:
			c.writeClose()
			return
		}
		if err != nil {
			_ = c.fail(err) // Receive reports it.
			return
		}
	}
}

func (c *Conn) writeClose() {
	c.mu.Lock()
	code, reason := c.code, c.reason
	c.mu.Unlock()
	if code == 0 {
		return // The connection is broken already.
	}
	deadline := time.Now().Add(closeGrace)
	_ = c.ws.SetWriteDeadline(deadline)
	for {
		select {
		case data := <-c.queue:
			if c.ws.WriteMessage(websocket.TextMessage, data) != nil {
				_ = c.ws.Close()
				return
			}
			continue
		default:
		}
		break
	}
	if len(reason) > 123 {
		reason = reason[:123]
	}
	err := c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), deadline)
	if err != nil {
		_ = c.ws.Close()
		return
	}
	_ = c.ws.SetReadDeadline(deadline)
}
