package tcpstream_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestStream_ServerSpeaksFirst(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		player, game, over := p.join(t)
		send(t, game, "SSH-2.0-game\r\n")
		expect(t, player, "SSH-2.0-game\r\n")
		_ = game.Close()
		_ = player.Close()
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Error(err)
		}
	})
}

func TestStream_HalfCloseLeavesTheOtherHalf(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		for _, first := range []string{"player", "game"} {
			player, game, over := p.join(t)
			a, b := player, game
			if first == "game" {
				a, b = game, player
			}
			send(t, a, "all I have to say")
			_ = a.CloseWrite()
			expect(t, b, "all I have to say")
			if err := ending(b); err != nil {
				t.Fatalf("%s closed its half: %v at the other end, want EOF", first, err)
			}
			send(t, b, "and a late answer")
			expect(t, a, "and a late answer")
			_ = b.Close()
			if err := ending(a); err != nil {
				t.Fatalf("%s closed its half first, the other later: %v, want EOF", first, err)
			}
			if err := await.Receive(t, over, "end of the stream"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestStream_ResetReachesTheOtherEndAndFreesTheConnection(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		for _, from := range []string{"player", "game"} {
			player, game, over := p.join(t)
			send(t, player, "x")
			expect(t, game, "x")
			a, b := player, game
			if from == "game" {
				a, b = game, player
			}
			tcpstream.Reset(a)
			if err := ending(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s reset: the other end sees %v", from, err)
			}
			if err := await.Receive(t, over, "end of the stream"); err != nil {
				t.Errorf("%s reset: %v, want the data connection idle again", from, err)
			}
		}
	})
}

func TestStream_GameGoneAfterItsEndDoesNotHurtTheNextPlayer(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		for range 50 {
			player, game, over := p.join(t)
			// The game says goodbye and is gone; what the player still sends meets a
			// closed socket, after the game's fin has passed.
			send(t, game, "kicked")
			_ = game.Close()
			expect(t, player, "kicked")
			if err := ending(player); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			for range 20 {
				if _, err := io.WriteString(player, "still talking"); err != nil {
					break
				}
			}
			_ = player.Close()
			if err := await.Receive(t, over, "end of the stream"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestStream_RefusedGameResetsThePlayerAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		for range 3 {
			player, accepted := tcp(t)
			p.games <- nil
			over := p.carry(accepted)
			if err := ending(player); !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("the player sees %v, want a reset", err)
			}
			if err := await.Receive(t, over, "end of the stream"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestStream_CarriesManyPlayersOneAfterAnother(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		for i := range 200 {
			player, game, over := p.join(t)
			if got := <-p.opened; got != openMessage {
				t.Fatalf("opened with %+v", got)
			}
			text := string(rune('a' + i%26))
			send(t, player, text)
			_ = player.CloseWrite()
			expect(t, game, text)
			if i%2 == 0 {
				_ = game.Close() // May overtake the player's end, or not.
			} else {
				_ = ending(game)
				_ = game.Close()
			}
			if err := ending(player); err != nil {
				t.Fatal(err)
			}
			if err := await.Receive(t, over, "end of the stream"); err != nil {
				t.Fatal(err)
			}
			if n := p.left.Load(); n != int64(i+1) {
				t.Fatalf("%d of %d players have left", n, i+1)
			}
		}
	})
}

func TestStream_MovesEveryByteBothWays(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		const size = 16 << 20
		moves(t, p, size)
		for end, counted := range map[string]*tcpstream.Counters{"server": &p.counted, "client": &p.played} {
			if sent, got := counted.Sent.Load(), counted.Received.Load(); sent != size || got != size {
				t.Errorf("the %s counted %d and %d bytes, want %d each way", end, sent, got, size)
			}
		}
	})
}

func TestStream_StalledPlayerIsCutWithItsDataConnection(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		_, game, over := p.join(t)
		stalled := make(chan struct{})
		go func() {
			defer close(stalled)
			_, _ = game.Write(make([]byte, 64<<20))
		}()
		<-p.opened
		p.server.Close()
		if err := await.Receive(t, over, "end of the stream"); !errors.Is(err, tcpstream.ErrBroken) && !errors.Is(err, tcpstream.ErrUnused) {
			t.Errorf("outcome %v", err)
		}
		_ = game.Close()
		<-stalled
		await.Until(t, "the player has left", func() bool { return p.left.Load() == 1 })
	})
}

func TestStream_DeadConnectionLeavesThePlayerForAnother(t *testing.T) {
	p := newPair(t)
	player, accepted := tcp(t)
	over := p.carry(accepted)
	<-p.opened
	p.client.Close() // While it reaches for the game.
	if err := await.Receive(t, over, "end of the stream"); !errors.Is(err, tcpstream.ErrUnused) {
		t.Fatalf("outcome %v, want ErrUnused", err)
	}
	p.games <- nil
	q := newPair(t)
	dialled, game := tcp(t)
	q.games <- dialled
	over = q.carry(accepted)
	send(t, player, "second try")
	expect(t, game, "second try")
	_, _ = player.Close(), game.Close()
	if err := await.Receive(t, over, "end of the stream"); err != nil {
		t.Error(err)
	}
}

func TestStream_PeerThatBreaksTheProtocolIsCutOff(t *testing.T) {
	text := func(s string) func(*websocket.Conn) {
		return func(ws *websocket.Conn) { _ = ws.WriteMessage(websocket.TextMessage, []byte(s)) }
	}
	for name, misbehave := range map[string]func(*websocket.Conn){
		"bytes while idle":   func(ws *websocket.Conn) { _ = ws.WriteMessage(websocket.BinaryMessage, []byte("x")) },
		"fin while idle":     text(`{"type":"fin"}`),
		"idle while idle":    text(`{"type":"idle"}`),
		"open to the server": text(`{"type":"open","allocation":1,"source":"1.2.3.4:5","destination":"1.2.3.4:5"}`),
		"not JSON":           text(`fin`),
		"oversized control":  text(`{"type":"fin","pad":"` + string(make([]byte, wire.MaxControl)) + `"}`),
		"oversized message": func(ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, make([]byte, wire.MaxStreamMessage+1))
		},
		"not a frame":          func(ws *websocket.Conn) { _, _ = ws.NetConn().Write(bytes.Repeat([]byte{0xff}, 64)) },
		"message never ending": func(ws *websocket.Conn) { endless(ws) },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := webSockets(t)
			served := make(chan error, 1)
			go func() { served <- tcpstream.NewServer(s.NetConn(), new(tcpstream.Counters)).Serve() }()
			misbehave(c)
			if err := await.Receive(t, served, "end of the stream"); err == nil {
				t.Error("served without an error")
			}
		})
	}
}

// endless sends one fragmented message for as long as it is let.
func endless(ws *websocket.Conn) {
	w, err := ws.NextWriter(websocket.TextMessage)
	for err == nil {
		_, err = w.Write(make([]byte, 4<<10))
	}
}

func BenchmarkStream(b *testing.B) {
	p := newPair(b)
	player, game, over := p.join(b)
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{player}, make([]byte, 256<<10))
	}()
	for b.Loop() {
		if _, err := game.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	_ = game.CloseWrite()
	<-done
	_ = player.Close()
	if err := await.Receive(b, over, "end of the stream"); err != nil {
		b.Error(err)
	}
}

func BenchmarkStreamRoundTrip(b *testing.B) {
	p := newPair(b)
	player, game, over := p.join(b)
	go func() {
		_, _ = io.Copy(struct{ io.Writer }{game}, game)
		_ = game.Close()
	}()
	message := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := player.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(player, message); err != nil {
			b.Fatal(err)
		}
	}
	_ = player.Close()
	_ = await.Receive(b, over, "end of the stream")
}
