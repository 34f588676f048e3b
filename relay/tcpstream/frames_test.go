package tcpstream_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// masked is a frame as a client sends it, with a key that is not zero.
func masked(kind wire.Opcode, final bool, payload string) []byte {
	const key = 0x1badcafe
	b := wire.AppendFrame(nil, wire.Frame{Opcode: kind, Final: final, Masked: true, Key: key, Length: int64(len(payload))})
	data := []byte(payload)
	wire.Mask(key, 0, data)
	return append(b, data...)
}

// serverOver serves the tunnel server's end over one end of a pipe, and returns
// the other.
func serverOver(t testing.TB) (*tcpstream.Conn, net.Conn, <-chan error) {
	t.Helper()
	near, far := net.Pipe()
	conn := tcpstream.NewServer(near, new(tcpstream.Counters))
	served := make(chan error, 1)
	go func() { served <- conn.Serve() }()
	t.Cleanup(func() { _ = far.Close() })
	_ = far.SetDeadline(time.Now().Add(await.Timeout))
	return conn, far, served
}

func TestFrames_AreTakenHoweverTheyAreCut(t *testing.T) {
	conn, far, served := serverOver(t)
	player, accepted := tcp(t)
	over := make(chan error, 1)
	go func() { over <- conn.Carry(&tcpstream.Player{Conn: accepted, Open: openMessage}) }()
	_, _ = io.ReadFull(far, make([]byte, 2)) // The open: the stream has begun.
	fin := make(chan struct{})
	go func() {
		defer close(fin)
		for said := bufio.NewReader(far); ; {
			if text, err := said.ReadString('}'); err != nil || strings.HasSuffix(text, `{"type":"fin"}`) {
				return
			}
		}
	}()
	long := string(bytes.Repeat([]byte("long "), 20_000))
	var message []byte
	for _, frame := range [][]byte{
		masked(wire.OpBinary, false, "Hel"),
		masked(wire.OpPong, true, "unasked"),
		masked(wire.OpContinuation, false, ""),
		masked(wire.OpContinuation, true, "lo, "),
		masked(wire.OpBinary, true, long),
		masked(wire.OpText, false, `{"type":`),
		masked(wire.OpContinuation, true, `"fin"}`),
	} {
		message = append(message, frame...)
	}
	go func() {
		for len(message) > 0 { // Headers and payloads are cut as well.
			n := min(len(message), 7+len(message)%1000)
			if _, err := far.Write(message[:n]); err != nil {
				return
			}
			message = message[n:]
		}
	}()
	expect(t, player, "Hello, "+long)
	if err := ending(player); err != nil {
		t.Errorf("the fin arrives as %v", err)
	}
	_ = player.Close()
	<-fin
	_, _ = far.Write(masked(wire.OpText, true, `{"type":"idle"}`))
	if err := await.Receive(t, over, "end of the stream"); err != nil {
		t.Error(err)
	}
	_ = far.Close()
	if err := await.Receive(t, served, "end of the stream"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("served until %v", err)
	}
}

func TestFrames_PingsAreAnsweredAndAClosesCodeIsHeard(t *testing.T) {
	s, c := webSockets(t)
	served := make(chan error, 1)
	go func() { served <- tcpstream.NewServer(s.NetConn(), new(tcpstream.Counters)).Serve() }()
	pong := make(chan string, 1)
	c.SetPongHandler(func(text string) error { pong <- text; return nil })
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _, _ = c.ReadMessage()
	}()
	deadline := time.Now().Add(await.Timeout)
	if err := c.WriteControl(websocket.PingMessage, []byte("are you there"), deadline); err != nil {
		t.Fatal(err)
	}
	if got := <-pong; got != "are you there" {
		t.Errorf("answered %q", got)
	}
	_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "done"), deadline)
	err := await.Receive(t, served, "end of the stream")
	if closed := new(websocket.CloseError); !errors.As(err, &closed) || closed.Code != websocket.CloseNormalClosure || closed.Text != "done" {
		t.Errorf("served until %v", err)
	}
	<-read
}

func TestFrames_RefuseWhatIsNoMessage(t *testing.T) {
	unmasked := wire.AppendFrame(nil, wire.Frame{Opcode: wire.OpBinary, Final: true})
	for name, bad := range map[string][]byte{
		"unmasked":             unmasked,
		"continuing nothing":   masked(wire.OpContinuation, true, "x"),
		"two at once":          append(masked(wire.OpText, false, "{"), masked(wire.OpText, true, "}")...),
		"text that never ends": bytes.Repeat(append(masked(wire.OpText, false, string(make([]byte, wire.MaxControl))), masked(wire.OpContinuation, false, "x")...), 2),
		"longer than anything": wire.AppendFrame(nil, wire.Frame{Opcode: wire.OpBinary, Final: true, Masked: true, Length: 1 << 62}),
	} {
		t.Run(name, func(t *testing.T) {
			_, far, served := serverOver(t)
			go func() { _, _ = io.Copy(io.Discard, far) }()
			go func() { _, _ = far.Write(bad) }()
			if err := await.Receive(t, served, "end of the stream"); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("served until %v", err)
			}
		})
	}
}

func TestStream_MovesEveryByteOverAnyConnection(t *testing.T) {
	far, near := tcp(t)
	for name, p := range map[string]*pair{"sockets": newPlainPair(t), "no sockets": newPairOver(t, far, near)} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 511, 512, 513, 16 << 10, 3<<20 + 7} {
				moves(t, p, size)
			}
		})
	}
}

// moves sends size bytes each way and checks what arrives.
func moves(t *testing.T, p *pair, size int) {
	t.Helper()
	player, game, over := p.join(t)
	data := make([]byte, size)
	_, _ = rand.Read(data)
	received := make(chan []byte, 2)
	for _, c := range []*net.TCPConn{player, game} {
		go func() {
			_, _ = c.Write(data)
			_ = c.CloseWrite()
		}()
		go func() {
			b, _ := io.ReadAll(c)
			received <- b
		}()
	}
	for range 2 {
		if b := <-received; !bytes.Equal(b, data) {
			t.Errorf("%d bytes arrived, not the %d sent", len(b), size)
		}
	}
	if err := await.Receive(t, over, "end of the stream"); err != nil {
		t.Error(err)
	}
	<-p.opened
}

func FuzzStream(f *testing.F) {
	f.Add(masked(wire.OpBinary, true, "bytes while idle"))
	f.Add(append(masked(wire.OpPing, true, "x"), masked(wire.OpText, true, `{"type":"fin"}`)...))
	f.Add(append(masked(wire.OpText, false, `{"type"`), masked(wire.OpContinuation, true, `:"idle"}`)...))
	f.Add(masked(wire.OpClose, true, "\x03\xe8bye"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, far, served := serverOver(t)
		go func() { _, _ = io.Copy(io.Discard, far) }()
		_, _ = far.Write(b)
		_ = far.Close()
		if err := await.Receive(t, served, "end of the stream"); err == nil {
			t.Error("served without an error")
		}
	})
}
