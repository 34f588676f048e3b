package channel_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

// overLine returns both ends of a channel over a line. The test receives from both.
func overLine(t *testing.T, rate int, compress bool, o channel.Options) (panel, device *channel.Conn, line *linetest.Line) {
	t.Helper()
	upgrader := websocket.Upgrader{EnableCompression: true}
	upgraded := make(chan *websocket.Conn, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
		}
		upgraded <- ws
	}))
	line = linetest.Slow(t, s.Listener.Addr().String(), rate)
	dialer := websocket.Dialer{EnableCompression: compress}
	ws, resp, err := dialer.Dial("ws://"+line.Address, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	panel, device = channel.New(<-upgraded, o), channel.New(ws, o)
	s.Close()
	return panel, device, line
}

type received struct {
	data []byte
	err  error
}

// receive reads messages until the channel ends, at the latest with the test.
func receive(t *testing.T, c *channel.Conn) <-chan received {
	t.Helper()
	messages := make(chan received, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.Wait()
		for {
			data, err := c.Receive()
			messages <- received{data, err}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		c.Close(websocket.CloseNormalClosure, "")
		<-done
	})
	return messages
}

// noise cannot be compressed much.
func noise(size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte('0' + rand.IntN(64))
	}
	return string(b)
}

func TestConn_ALargeMessageOnASlowLineTakesItsTime(t *testing.T) {
	// Of a compressed message, as much arrives at once as takes 1.5 s.
	o := channel.Options{PingInterval: 500 * time.Millisecond, Deadline: 5 * time.Second}
	const rate, size = 16_000, 200_000 // 12.5 s, of which the buffers hide a few.
	for name, test := range map[string]struct {
		compress, up bool
		message      string
	}{
		"snapshot to an older agent": {message: strings.Repeat("0123456789", size/10)},
		"snapshot":                   {compress: true, message: noise(size)},
		"reports":                    {compress: true, up: true, message: noise(size)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			panel, device, _ := overLine(t, rate, test.compress, o)
			from, to := panel, device
			if test.up {
				from, to = device, panel
			}
			back, got := receive(t, from), receive(t, to)
			for _, message := range []string{test.message, "and after it"} {
				if err := from.Send(message); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range []string{test.message, "and after it"} {
				select {
				case m := <-got:
					if m.err != nil || string(m.data) != `"`+strings.NewReplacer(`\`, `\\`, "<", `\u003c`, ">", `\u003e`).Replace(want)+`"` {
						t.Fatalf("received %.40q, %v; want %.40q", m.data, m.err, want)
					}
				case m := <-back:
					t.Fatalf("the sender's channel ended: %v", m.err)
				case <-time.After(time.Minute):
					t.Fatal("no message")
				}
			}
		})
	}
}

func TestConn_LargeMessagesAreCompressedWhereBothEndsCan(t *testing.T) {
	snapshot := strings.Repeat(`{"id":1,"protocol":"tcp","localHost":"127.0.0.1","localPort":25565},`, 800)
	for _, compress := range []bool{true, false} {
		panel, device, line := overLine(t, 10_000_000, compress, channel.Options{})
		receive(t, panel)
		got := receive(t, device)
		if err := panel.Send(snapshot); err != nil {
			t.Fatal(err)
		}
		if m := await.Receive(t, got, "the snapshot"); m.err != nil {
			t.Fatal(m.err)
		}
		if small := line.Passed() < len(snapshot)/5; small != compress {
			t.Errorf("compression %t: %d bytes on the line for %d", compress, line.Passed(), len(snapshot))
		}
	}
}

func TestConn_AMessageThatStopsOrTricklesEndsTheChannel(t *testing.T) {
	o := channel.Options{PingInterval: 50 * time.Millisecond, Deadline: 3 * time.Second}
	t.Run("the line is cut", func(t *testing.T) {
		t.Parallel()
		panel, device, line := overLine(t, 16_000, false, o)
		receive(t, panel)
		got := receive(t, device)
		if err := panel.Send(noise(200_000)); err != nil {
			t.Fatal(err)
		}
		await.Until(t, "a part of the message", func() bool { return line.Passed() > 10_000 })
		line.Cut()
		var timeout net.Error
		if m := await.Receive(t, got, "the end"); !errors.As(m.err, &timeout) || !timeout.Timeout() {
			t.Errorf("ended by %v, want a timeout", m.err)
		}
	})
	t.Run("trickle", func(t *testing.T) {
		t.Parallel()
		slow := dial(t, func(ws *websocket.Conn) {
			conn := ws.NetConn()
			_, err := conn.Write([]byte{1, 1, ' '}) // A first fragment, and then many more of one byte.
			for err == nil {
				time.Sleep(20 * time.Millisecond)
				_, err = conn.Write([]byte{0, 1, ' '})
			}
		})
		c := channel.New(slow, o)
		if m := await.Receive(t, receive(t, c), "the end"); m.err == nil || !strings.Contains(m.err.Error(), "too slowly") {
			t.Errorf("ended by %v", m.err)
		}
	})
	t.Run("larger when decompressed than allowed", func(t *testing.T) {
		t.Parallel()
		small := o
		small.MaxMessage = 100_000
		panel, device, _ := overLine(t, 10_000_000, true, small)
		back, got := receive(t, panel), receive(t, device)
		if err := panel.Send(strings.Repeat(" ", 200_000)); err != nil {
			t.Fatal(err)
		}
		if m := await.Receive(t, back, "the reason"); !websocket.IsCloseError(m.err, websocket.CloseMessageTooBig) {
			t.Errorf("the sender's channel ended by %v, want the limit", m.err)
		}
		if m := await.Receive(t, got, "the end"); !errors.Is(m.err, websocket.ErrReadLimit) {
			t.Errorf("ended by %v, want the limit", m.err)
		}
	})
}
