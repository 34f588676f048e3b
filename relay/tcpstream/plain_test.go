package tcpstream_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// bulk is more than a pipe, a message and what sockets hold, and no multiple of
// anything.
const bulk = 9<<20 + 11

// pass sends bulk from one end of a stream and checks what comes out at the other.
func pass(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	data := pattern(bulk)
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	got := make([]byte, bulk)
	if n, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes come through (%v), not the %d sent", n, err, bulk)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// pattern is n bytes that repeat at no distance at which anything is cut. They are
// not to be changed.
func pattern(n int) []byte { return patterned()[:n] }

var patterned = sync.OnceValue(func() []byte {
	b := make([]byte, bulk)
	for i := range b {
		b[i] = byte(i%251) ^ byte(i>>12)
	}
	return b
})

func TestPlain_HalfCloseBehindBulkLeavesTheOtherHalf(t *testing.T) {
	p := newPlainPair(t)
	for _, first := range []string{"player", "game", "player"} {
		player, game, over := p.join(t)
		a, b := player, game
		if first == "game" {
			a, b = game, player
		}
		pass(t, a, b)
		_ = a.CloseWrite()
		if err := ending(b); err != nil {
			t.Fatalf("%s closed its half: %v at the other end, want EOF", first, err)
		}
		pass(t, b, a)
		_ = b.Close()
		if err := ending(a); err != nil {
			t.Fatalf("%s closed its half first, the other later: %v, want EOF", first, err)
		}
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlain_ResetBehindBulkFreesTheConnection(t *testing.T) {
	p := newPlainPair(t)
	for _, from := range []string{"player", "game", "player"} {
		player, game, over := p.join(t)
		a, b := player, game
		if from == "game" {
			a, b = game, player
		}
		pass(t, a, b)
		pass(t, b, a)
		tcpstream.Reset(a)
		if err := ending(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s reset: the other end sees %v", from, err)
		}
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Errorf("%s reset: %v, want the data connection idle again", from, err)
		}
	}
}

func TestPlain_WhoLeavesInTheMidstOfATransferIsMissedAtOnce(t *testing.T) {
	for _, leaver := range []string{"player", "game"} {
		p := newPlainPair(t)
		player, game, over := p.join(t)
		a, b := player, game
		if leaver == "game" {
			a, b = game, player
		}
		cut := make(chan error, 1)
		go func() {
			for data := make([]byte, 1<<20); ; {
				if _, err := b.Write(data); err != nil {
					cut <- err
					return
				}
			}
		}()
		if _, err := io.ReadFull(a, make([]byte, bulk)); err != nil {
			t.Fatal(err)
		}
		tcpstream.Reset(a)
		if err := await.Receive(t, cut, "end of the stream"); err == nil {
			t.Errorf("the %s left, and the other end is not told", leaver)
		}
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Errorf("the %s left: %v, want the data connection idle again", leaver, err)
		}
	}
}

// A player's phone may speak Multipath TCP, whose sockets the kernel does not splice
// as others.
func TestPlain_MovesTheBytesOfMultipathPlayers(t *testing.T) {
	p := newPlainPair(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialer := new(net.Dialer)
	dialer.SetMultipathTCP(true)
	player, err := dialer.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if multipath, _ := accepted.(*net.TCPConn).MultipathTCP(); !multipath {
		t.Log("there is no Multipath TCP here")
	}
	dialled, game := tcp(t)
	p.games <- dialled
	over := p.carry(accepted.(*net.TCPConn))
	pass(t, player.(*net.TCPConn), game)
	pass(t, game, player.(*net.TCPConn))
	_, _ = player.Close(), game.Close()
	if err := await.Receive(t, over, "end of the stream"); err != nil {
		t.Error(err)
	}
}

func TestPlain_MessagesAreBounded(t *testing.T) {
	for length, want := range map[int64]bool{wire.MaxPlainMessage: false, wire.MaxPlainMessage + 1: true} {
		s := newPlainServer(t)
		_, _ = s.far.Write(wire.AppendFrame(nil, wire.Frame{Opcode: wire.OpBinary, Final: true, Masked: true, Length: length}))
		_ = s.far.CloseWrite()
		if err := await.Receive(t, s.served, "end of the stream"); errors.Is(err, wire.ErrMalformed) != want {
			t.Errorf("a message of %d bytes: %v", length, err)
		}
		s.abandon()
	}
}

// plainServer is the tunnel server's end of a data connection without encryption,
// which carries a player.
type plainServer struct {
	far, player, accepted *net.TCPConn
	served, carried       <-chan error
}

func newPlainServer(t testing.TB) *plainServer {
	t.Helper()
	far, near := tcp(t)
	player, accepted := tcp(t)
	socket, err := tcpstream.NewSocket(near)
	if err != nil {
		t.Fatal(err)
	}
	conn := tcpstream.NewServer(socket, new(tcpstream.Counters))
	served, carried := make(chan error, 1), make(chan error, 1)
	go func() { carried <- conn.Carry(&tcpstream.Player{Conn: accepted, Open: openMessage}) }()
	_, _ = io.ReadFull(far, make([]byte, 2)) // The open: the stream has begun.
	go func() { served <- conn.Serve() }()
	return &plainServer{far: far, player: player, accepted: accepted, served: served, carried: carried}
}

// abandon leaves no port behind that waits.
func (s *plainServer) abandon() {
	for _, c := range []*net.TCPConn{s.far, s.player, s.accepted} {
		tcpstream.Reset(c)
	}
}

// FuzzPlainStream cuts a stream into frames of any length, and those into pieces:
// whether they are read or spliced, each byte arrives once and in order.
func FuzzPlainStream(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0, 0xff, 0xff, 0, 0x40, 0, 0, 0, 5, 0}, uint16(0xffff))
	f.Add([]byte{0x80, 1, 2, 0x3f, 0xff, 1, 0x40, 0, 3, 0, 0, 0}, uint16(700))
	f.Add([]byte{0xff, 0xff, 0, 0, 3, 0, 0x7f, 0xff, 0}, uint16(16384))
	f.Fuzz(func(t *testing.T, frames []byte, piece uint16) {
		const masks, cuts = 1, 2
		want := pattern(min(len(frames), 24) / 3 * 0xffff)
		var message []byte
		length, inside := 0, false
		for ; len(frames) >= 3 && length < len(want); frames = frames[3:] {
			frame := wire.Frame{Opcode: wire.OpBinary, Final: frames[2]&cuts == 0, Masked: true, Length: int64(frames[0])<<8 | int64(frames[1])}
			if inside {
				frame.Opcode = wire.OpContinuation
			}
			inside = !frame.Final
			if frames[2]&masks != 0 {
				frame.Key = 0x1badcafe
			}
			payload := bytes.Clone(want[length:][:frame.Length])
			length += len(payload)
			wire.Mask(frame.Key, 0, payload)
			message = append(wire.AppendFrame(message, frame), payload...)
		}
		s := newPlainServer(t)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			// Not by single bytes where there are many.
			for n := max(int(piece)+1, len(message)>>10); len(message) > 0; message = message[min(n, len(message)):] {
				if _, err := s.far.Write(message[:min(n, len(message))]); err != nil {
					return
				}
			}
		}()
		expect(t, s.player, string(want[:length]))
		<-sent
		s.abandon()
		_, _ = await.Receive(t, s.served, "end of the stream"), await.Receive(t, s.carried, "end of the stream")
	})
}

func TestPlain_FrameMaskedByTheServerBehindASplicedOneIsRefused(t *testing.T) {
	far, near := tcp(t)
	dialled, game := tcp(t)
	socket, err := tcpstream.NewSocket(near)
	if err != nil {
		t.Fatal(err)
	}
	conn := tcpstream.NewClient(socket, func(wire.Control) (tcpstream.Game, error) {
		return tcpstream.Game{Conn: dialled, Left: func() {}, Counters: new(tcpstream.Counters)}, nil
	})
	served := make(chan error, 1)
	go func() { served <- conn.Serve() }()
	t.Cleanup(conn.Close)
	open, err := wire.AppendControl(nil, openMessage)
	if err != nil {
		t.Fatal(err)
	}
	message := append(wire.AppendFrame(nil, wire.Frame{Opcode: wire.OpText, Final: true, Length: int64(len(open))}), open...)
	const long = 64 << 10
	message = wire.AppendFrame(message, wire.Frame{Opcode: wire.OpBinary, Final: true, Length: long})
	if _, err := far.Write(append(message, pattern(long)...)); err != nil {
		t.Fatal(err)
	}
	expect(t, game, string(pattern(long)))
	_, _ = far.Write(wire.AppendFrame(nil, wire.Frame{Opcode: wire.OpBinary, Final: true, Masked: true, Length: long}))
	if err := await.Receive(t, served, "end of the stream"); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("served until %v", err)
	}
}
