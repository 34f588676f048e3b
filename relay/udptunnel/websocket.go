package udptunnel

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// messages is a transport that sends each batch as one WebSocket message.
type messages struct {
	ws     *websocket.Conn
	socket syscall.RawConn // nil: unknown.
	room   bool
	ask    func(fd uintptr) // Made once: a closure for each batch would be garbage.
}

func newMessages(ws *websocket.Conn) *messages {
	m := &messages{ws: ws}
	m.ask = func(fd uintptr) { m.room = writable(fd) }
	conn := ws.NetConn()
	for {
		under, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = under.NetConn() // TLS adds no waiting of its own.
	}
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			m.socket = raw
		}
	}
	return m
}

func (m *messages) write(batch []byte) error {
	return m.ws.WriteMessage(websocket.BinaryMessage, batch)
}

// ready is called by the goroutine that is about to write.
func (m *messages) ready() bool {
	if m.socket == nil {
		return false
	}
	m.room = false
	return m.socket.Control(m.ask) == nil && m.room
}

func writeClose(ws *websocket.Conn, code int, text string) {
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}

// closeNow closes a WebSocket's socket. Closing the TLS connection would first send an
// alert, and wait for up to 5 s if the peer does not read.
func closeNow(ws *websocket.Conn) {
	if t, ok := ws.NetConn().(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = ws.Close()
}
