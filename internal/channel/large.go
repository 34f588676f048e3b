package channel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// pieceSize is how much of a message is written at a time. Each piece that leaves
	// shows that the peer reads.
	pieceSize = 8 << 10
	// minRate is the least rate at which a message must arrive, in bytes per second.
	// A peer that sends a byte now and then would otherwise hold a channel for ever.
	minRate = 1 << 10
	// sendBuffer is the size of the socket's send buffer. A larger one takes a whole
	// snapshot, and the writer would wait for a third of it to leave before the next
	// piece: on a slow line, longer than WriteTimeout.
	sendBuffer = 64 << 10
	// maxCompressors bounds the messages that are being compressed. Each takes 1 MB
	// or so until it has left, which is long on a slow line.
	maxCompressors = 8
)

var errTrickle = errors.New("channel: a message arrives too slowly")

// compressors is a semaphore of all channels of the process.
var compressors = make(chan struct{}, maxCompressors)

// limitSendBuffer sets the send buffer of the socket below conn, if there is one.
func limitSendBuffer(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case interface{ SetWriteBuffer(bytes int) error }:
			_ = c.SetWriteBuffer(sendBuffer) // A socket that is closed fails the write that follows.
			return
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return
		}
	}
}

// readMessage reads a message. Each part that arrives gives the peer another Deadline.
func (c *Conn) readMessage(r io.Reader) ([]byte, error) {
	began := time.Now()
	data := make([]byte, 0, 512)
	for {
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > c.opts.MaxMessage:
			return nil, fmt.Errorf("%w: more than %d bytes", websocket.ErrReadLimit, c.opts.MaxMessage)
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		}
		// In steps of a second, which a large MaxMessage cannot overflow.
		if time.Since(began) > c.opts.Deadline+time.Duration(len(data)/minRate)*time.Second {
			return nil, errTrickle
		}
		if n > 0 {
			c.extend()
		}
	}
}

func (c *Conn) writeMessage(data []byte) error {
	if len(data) > pieceSize {
		return c.writeLarge(data)
	}
	if err := c.setWriteDeadline(); err != nil {
		return err
	}
	return c.ws.WriteMessage(websocket.TextMessage, data)
}

// writeLarge writes a message in pieces, each of which has the time of WriteTimeout,
// and answers pings in between. It compresses the message if the WebSocket can and not
// too many others are being compressed.
func (c *Conn) writeLarge(data []byte) error {
	select {
	case compressors <- struct{}{}:
		c.ws.EnableWriteCompression(true)
		defer func() {
			c.ws.EnableWriteCompression(false)
			<-compressors
		}()
	default:
	}
	w, err := c.ws.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(data, pieceSize) {
		if err := c.setWriteDeadline(); err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		select {
		case ping := <-c.pong:
			if err := c.writeControl(websocket.PongMessage, ping); err != nil {
				return err
			}
		default:
		}
	}
	if err := c.setWriteDeadline(); err != nil {
		return err
	}
	return w.Close()
}

func (c *Conn) writeControl(kind int, data []byte) error {
	return c.ws.WriteControl(kind, data, c.writeDeadline())
}

func (c *Conn) setWriteDeadline() error { return c.ws.SetWriteDeadline(c.writeDeadline()) }

// writeDeadline is when the next write must be over.
func (c *Conn) writeDeadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return c.until
	}
	return time.Now().Add(c.opts.WriteTimeout)
}
