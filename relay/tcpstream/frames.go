package tcpstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// headSize is how many bytes for incoming frames a data connection always holds:
// headers and short messages. Longer ones have memory while they are read.
const headSize = 512

// frames reads and writes the WebSocket frames of a stream data connection. It
// passes on the part of a message that has arrived, where a WebSocket library waits
// for all of it, and reads and writes as much at once as there is. One goroutine
// reads.
type frames struct {
	conn   net.Conn
	socket *Socket // Below conn; nil: there is none.
	plain  bool    // conn is that socket: there is no TLS.
	client bool

	writing sync.Mutex                // Held for one frame.
	space   [wire.MaxFrameHeader]byte // For the header of one, of the writer.

	head     [headSize]byte
	borrowed *Buffer // nil unless head is too small for what is there.
	rest     []byte  // Bytes read and not taken, in head or borrowed.

	frame  wire.Frame
	offset int64 // How much of the frame's payload is taken.

	spliced bool // The frame was spliced, in part or whole, and the next is likely to be.

	message wire.Opcode // OpText or OpBinary, or OpContinuation between messages.
	size    int64       // Bytes of the message, as far as its frames have come.
	text    []byte      // Of a text message.
}

func newFrames(conn net.Conn, client bool) *frames {
	f := &frames{conn: conn, socket: socketBelow(conn), client: client}
	f.plain = f.socket != nil && conn == net.Conn(f.socket)
	// As if a frame had just been taken.
	f.frame = wire.Frame{Opcode: wire.OpPong, Final: true}
	return f
}

// next returns either bytes of a binary message, as many as have arrived, or a whole
// text message. They are valid until the next call. Nil bytes of a binary message
// mean that some are pending: the caller splices them, or takes them. Next answers
// pings, and returns a *websocket.CloseError when the peer closes.
func (f *frames) next() (wire.Opcode, []byte, error) {
	for {
		if f.offset == f.frame.Length {
			if err := f.nextFrame(); err != nil {
				return 0, nil, err
			}
		}
		if f.frame.Opcode.Control() {
			if err := f.control(); err != nil {
				return 0, nil, err
			}
			continue
		}
		if f.pending() > 0 {
			return wire.OpBinary, nil, nil
		}
		kind := f.message
		data, err := f.take()
		if err != nil {
			return 0, nil, err
		}
		whole := f.message == wire.OpContinuation
		if kind == wire.OpBinary && len(data) > 0 {
			return kind, data, nil
		}
		if kind == wire.OpBinary {
			continue
		}
		f.text = append(f.text, data...)
		if whole {
			text := f.text
			f.text = nil
			return kind, text, nil
		}
	}
}

// nextFrame reads a frame's header.
func (f *frames) nextFrame() error {
	for {
		frame, n, err := wire.DecodeFrame(f.rest)
		if err != nil {
			return err
		}
		if n > 0 {
			f.frame, f.offset, f.rest, f.spliced = frame, 0, f.rest[n:], false
			return f.checkFrame()
		}
		if err := f.fill(); err != nil {
			return err
		}
	}
}

// checkFrame checks that a frame fits what came before it.
func (f *frames) checkFrame() error {
	if f.frame.Masked == f.client {
		return fmt.Errorf("%w: frame masked by the wrong end", wire.ErrMalformed)
	}
	if f.frame.Opcode.Control() {
		return nil
	}
	if (f.frame.Opcode == wire.OpContinuation) == (f.message == wire.OpContinuation) {
		return fmt.Errorf("%w: frame of no message or of two", wire.ErrMalformed)
	}
	if f.frame.Opcode != wire.OpContinuation {
		f.message, f.size = f.frame.Opcode, 0
	}
	limit := int64(wire.MaxStreamMessage)
	if f.plain {
		limit = wire.MaxPlainMessage
	}
	if f.message == wire.OpText {
		limit = wire.MaxControl
	}
	if f.frame.Length > limit-f.size {
		return fmt.Errorf("%w: message over %d bytes", wire.ErrMalformed, limit)
	}
	f.size += f.frame.Length
	return nil
}

// take returns what has arrived of the frame's payload: at least one byte, for which
// it waits, if any is left.
func (f *frames) take() ([]byte, error) {
	left := f.frame.Length - f.offset
	if left > 0 && len(f.rest) == 0 {
		if err := f.fill(); err != nil {
			return nil, err
		}
	}
	n := min(int64(len(f.rest)), left)
	data := f.rest[:n:n]
	wire.Mask(f.frame.Key, f.offset, data)
	f.rest = f.rest[n:]
	f.passed(n)
	return data, nil
}

// passed notes that n bytes of the frame's payload have been taken.
func (f *frames) passed(n int64) {
	f.offset += n
	if f.offset == f.frame.Length && f.frame.Final && !f.frame.Opcode.Control() {
		f.message = wire.OpContinuation
	}
}

// control reads the rest of a control frame and acts on it.
func (f *frames) control() error {
	var payload []byte
	for f.offset < f.frame.Length {
		data, err := f.take()
		if err != nil {
			return err
		}
		payload = append(payload, data...)
	}
	switch f.frame.Opcode {
	case wire.OpPing:
		return f.pong(payload)
	case wire.OpClose:
		closed := &websocket.CloseError{Code: websocket.CloseNoStatusReceived}
		if len(payload) >= 2 {
			closed.Code, closed.Text = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		return closed
	default:
		return nil
	}
}

// pending is how many bytes of a binary message's frame can be spliced to a socket,
// after those that have been read; 0 if splicing is not worth it.
func (f *frames) pending() int {
	left := int(f.frame.Length-f.offset) - len(f.rest)
	if !f.plain || !canSplice || f.message != wire.OpBinary || f.frame.Key != 0 || (f.borrowed != nil && len(f.rest) > 0) {
		return 0
	}
	if left < spliceMin && !f.spliced {
		return 0
	}
	return max(left, 0)
}

// fill reads as much as there is, and waits if there is nothing.
func (f *frames) fill() error {
	if f.borrowed == nil && f.plain && f.offset < f.frame.Length {
		f.borrowed = borrow(receiveBuffers)
	}
	if b := f.borrowed; b != nil {
		have := copy(b.room, f.rest)
		n, err := f.readNow(b.room[have:])
		if n > 0 || err != nil {
			f.rest = b.room[:have+n]
			return err
		}
		// No buffer is held while waiting. At most part of a header is there.
		f.rest = f.head[:copy(f.head[:], b.room[:have])]
		f.release()
	}
	head := f.head[:]
	// A header longer than the peer may send is read so that it can be refused.
	if long := f.longHeader(); f.spliced && len(f.rest) < long {
		head = head[:long]
	}
	have := copy(head, f.rest)
	n, err := f.conn.Read(head[have:])
	have += n
	f.rest = head[:have]
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // Without a close frame.
		}
		return err
	}
	// Once the header gives a frame's length, the rest of it may be spliced.
	if have < len(f.head) || f.plain {
		return nil
	}
	f.borrowed = borrow(receiveBuffers)
	n, err = f.readNow(f.borrowed.room[copy(f.borrowed.room, f.rest):])
	f.rest = f.borrowed.room[:have+n]
	return err
}

// longHeader is the length of the header of a long frame to come.
func (f *frames) longHeader() int {
	if f.client {
		return wire.MaxFrameHeader - 4 // There is no key.
	}
	return wire.MaxFrameHeader
}

// release returns the borrowed buffer.
func (f *frames) release() {
	if f.borrowed != nil {
		f.borrowed.Release()
		f.borrowed = nil
	}
}

// readNow reads as much as there is and fits.
func (f *frames) readNow(b []byte) (n int, err error) {
	if f.socket == nil || !canPoll {
		return f.readFrame(b)
	}
	f.socket.noWait = true
	defer func() { f.socket.noWait = false }()
	for n < len(b) {
		m, err := f.conn.Read(b[n:])
		n += m
		if errors.Is(err, errWouldBlock) || (err != nil && n > 0) {
			return n, nil // An error that lasts is there again when more is read.
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readFrame reads more of a frame whose beginning has arrived. It is for systems that
// cannot tell what is there: the rest of a frame is certain to come.
func (f *frames) readFrame(b []byte) (int, error) {
	if left := f.frame.Length - f.offset - int64(len(f.rest)); left <= 0 {
		return 0, nil
	}
	return f.conn.Read(b)
}

// write writes a short frame.
func (f *frames) write(kind wire.Opcode, payload []byte) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.writeLocked(kind, payload)
}

func (f *frames) writeLocked(kind wire.Opcode, payload []byte) error {
	b := make([]byte, 0, wire.MaxFrameHeader+len(payload))
	_, err := f.conn.Write(append(wire.AppendFrame(b, f.header(kind, len(payload))), payload...))
	return err
}

// pong answers a ping, unless a frame is being written: that is as good an answer,
// and a peer that does not read must not keep this end from reading.
func (f *frames) pong(payload []byte) error {
	if !f.writing.TryLock() {
		return nil
	}
	defer f.writing.Unlock()
	return f.writeLocked(wire.OpPong, payload)
}

// writeBytes writes a binary message: the Data of a buffer with space for the header
// before it.
func (f *frames) writeBytes(b *Buffer) error {
	var space [wire.MaxFrameHeader]byte
	header := wire.AppendFrame(space[:0], f.header(wire.OpBinary, len(b.Data)))
	front := len(b.whole) - len(b.room)
	message := b.whole[front-len(header) : front+len(b.Data)]
	copy(message, header)
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.socket == nil || len(b.Data) < smallChunk {
		_, err := f.conn.Write(message) // One record: there is nothing to gather.
		return err
	}
	f.socket.gather()
	_, err := f.conn.Write(message)
	return errors.Join(err, f.socket.flush())
}

// header returns the header of a message of one frame. A client's masking key is
// zero: see the package documentation of wire.
func (f *frames) header(kind wire.Opcode, length int) wire.Frame {
	return wire.Frame{Opcode: kind, Final: true, Masked: f.client, Length: int64(length)}
}

// close closes the socket. Closing the TLS connection would first send an alert, and
// wait for up to 5 s if the peer does not read.
func (f *frames) close() {
	conn := f.conn
	for {
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			_ = conn.Close()
			return
		}
		conn = above.NetConn()
	}
}
