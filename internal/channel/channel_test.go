package channel_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type note struct {
	N int `json:"n"`
}

// listen serves one WebSocket after another to serve, and returns how to dial.
func listen(t testing.TB, serve func(*websocket.Conn)) func(context.Context) (*websocket.Conn, error) {
	t.Helper()
	upgrader := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		defer ws.Close()
		serve(ws)
	}))
	t.Cleanup(srv.Close)
	url := "ws" + strings.TrimPrefix(srv.URL, "http")
	return func(ctx context.Context) (*websocket.Conn, error) {
		ws, resp, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
		if resp != nil {
			resp.Body.Close()
		}
		return ws, err
	}
}

func dial(t testing.TB, serve func(*websocket.Conn)) *websocket.Conn {
	t.Helper()
	ws, err := listen(t, serve)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func TestConn_DeliversInOrderAndThenTheCloseReason(t *testing.T) {
	ws := dial(t, func(ws *websocket.Conn) {
		c := channel.New(ws, channel.Options{})
		for n := range 20 {
			if err := c.Send(note{n}); err != nil {
				t.Errorf("send: %v", err)
			}
		}
		c.Close(channel.CloseDeleted, "gone")
		c.Wait()
		if err := c.Send(note{}); !errors.Is(err, channel.ErrClosed) {
			t.Errorf("send after close: %v", err)
		}
	})
	c := channel.New(ws, channel.Options{})
	defer c.Wait()
	for n := range 20 {
		data, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var got note
		if err := json.Unmarshal(data, &got); err != nil || got.N != n {
			t.Fatalf("message %d: %s, %v", n, data, err)
		}
	}
	_, err := c.Receive()
	var ce *websocket.CloseError
	if !errors.As(err, &ce) || ce.Code != channel.CloseDeleted || ce.Text != "gone" {
		t.Fatalf("end: %v", err)
	}
}

func TestConn_SilentPeerIsDeadAfterTheDeadline(t *testing.T) {
	release := make(chan struct{})
	ws := dial(t, func(*websocket.Conn) { <-release }) // Never reads, hence never answers a ping.
	defer close(release)
	c := channel.New(ws, channel.Options{PingInterval: 10 * time.Millisecond, Deadline: 100 * time.Millisecond})
	defer c.Wait()
	var timeout net.Error
	if _, err := c.Receive(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("got %v, want a timeout", err)
	}
}

func TestConn_QuietButLivePeerStays(t *testing.T) {
	opts := channel.Options{PingInterval: 20 * time.Millisecond, Deadline: time.Second}
	ws := dial(t, func(ws *websocket.Conn) {
		c := channel.New(ws, opts)
		timer := time.AfterFunc(3*opts.Deadline, func() { c.Close(websocket.CloseNormalClosure, "enough") })
		defer timer.Stop()
		c.Wait()
	})
	c := channel.New(ws, opts)
	defer c.Wait()
	_, err := c.Receive()
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Fatalf("ended by %v, want the peer's own close", err)
	}
}

func TestConn_SlowReaderEndsTheChannelAndNeverBlocksSend(t *testing.T) {
	release := make(chan struct{})
	ws := dial(t, func(*websocket.Conn) { <-release })
	defer close(release)
	c := channel.New(ws, channel.Options{Queue: 4})
	defer c.Wait()
	big := strings.Repeat("x", 1<<20)
	var err error
	for range 100 {
		if err = c.Send(big); err != nil {
			break
		}
	}
	if !errors.Is(err, channel.ErrSlow) {
		t.Fatalf("got %v, want ErrSlow", err)
	}
	if _, err := c.Receive(); !errors.Is(err, channel.ErrSlow) {
		t.Fatalf("receive: %v, want ErrSlow", err)
	}
}

func TestConn_RefusesBinaryAndOversizedMessages(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, size, code int
	}{
		"binary":    {websocket.BinaryMessage, 10, websocket.CloseUnsupportedData},
		"oversized": {websocket.TextMessage, 2000, websocket.CloseMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			ws := dial(t, func(ws *websocket.Conn) {
				c := channel.New(ws, channel.Options{MaxMessage: 1000})
				if _, err := c.Receive(); err == nil {
					t.Error("the message was taken")
				}
				c.Wait()
			})
			defer ws.Close()
			if err := ws.WriteMessage(tc.kind, make([]byte, tc.size)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ws.NextReader(); !websocket.IsCloseError(err, tc.code) {
				t.Fatalf("got %v, want close code %d", err, tc.code)
			}
		})
	}
}

func receiveAll(_ context.Context, c *channel.Conn, ready func()) error {
	for {
		if _, err := c.Receive(); err != nil {
			return err
		}
		ready()
	}
}

func TestKeep_ComesBackUntilToldNotTo(t *testing.T) {
	codes := []int{websocket.CloseServiceRestart, channel.CloseFeatureOff, channel.CloseTakenOver}
	served := 0
	dial := listen(t, func(ws *websocket.Conn) {
		c := channel.New(ws, channel.Options{})
		code := codes[served]
		served++ // Before the other end can hear the code, and come back.
		c.Close(code, "because")
		c.Wait()
	})
	var ends []error
	err := channel.Keep(t.Context(), channel.KeepOptions{
		Dial:    dial,
		Serve:   receiveAll,
		Ended:   func(err error, _ time.Duration) { ends = append(ends, err) },
		Backoff: backoff.Exponential{Min: time.Millisecond},
	})
	var final *channel.FinalError
	if !errors.As(err, &final) || final.Code != channel.CloseTakenOver || final.Reason != "because" {
		t.Fatalf("Keep: %v", err)
	}
	if len(ends) != 2 || !websocket.IsCloseError(ends[0], codes[0]) || !websocket.IsCloseError(ends[1], codes[1]) {
		t.Fatalf("ends: %v", ends)
	}
}

func TestKeep_FinalDialErrorEndsIt(t *testing.T) {
	err := channel.Keep(t.Context(), channel.KeepOptions{
		Dial: func(context.Context) (*websocket.Conn, error) {
			return nil, &channel.FinalError{Code: channel.CloseTokenDead, Reason: "revoked"}
		},
		Serve: receiveAll,
	})
	var final *channel.FinalError
	if !errors.As(err, &final) || final.Code != channel.CloseTokenDead {
		t.Fatalf("Keep: %v", err)
	}
}

func TestKeep_WakeCutsTheWaitShort(t *testing.T) {
	wake := make(chan struct{})
	tries := 0
	err := channel.Keep(t.Context(), channel.KeepOptions{
		Dial: func(context.Context) (*websocket.Conn, error) {
			if tries++; tries == 2 {
				return nil, &channel.FinalError{Code: channel.CloseDeleted}
			}
			return nil, errors.New("refused")
		},
		Serve:   receiveAll,
		Wake:    wake,
		Ended:   func(error, time.Duration) { go func() { wake <- struct{}{} }() },
		Backoff: backoff.Exponential{Min: time.Hour, Max: time.Hour, Rand: func() float64 { return 1 }},
	})
	if err == nil || tries != 2 {
		t.Fatalf("%d tries, %v", tries, err)
	}
}

func TestKeep_EndsWithItsContextAndTellsThePeer(t *testing.T) {
	told := make(chan error, 1)
	up := make(chan struct{})
	dial := listen(t, func(ws *websocket.Conn) {
		c := channel.New(ws, channel.Options{})
		close(up)
		_, err := c.Receive()
		told <- err
		c.Wait()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- channel.Keep(ctx, channel.KeepOptions{Dial: dial, Serve: receiveAll}) }()
	<-up
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("Keep: %v", err)
	}
	if err := <-told; !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Fatalf("the peer saw %v", err)
	}
}

func TestConn_LazyEndPingsOnlyAPeerThatDoesNot(t *testing.T) {
	const interval = 100 * time.Millisecond
	for name, test := range map[string]struct {
		peerPings bool
		want      func(pings int) bool
	}{
		"a peer that pings":        {true, func(pings int) bool { return pings <= 1 }},
		"a peer that only listens": {false, func(pings int) bool { return pings >= 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			pings := make(chan int, 1)
			ws := dial(t, func(ws *websocket.Conn) {
				end := time.Now().Add(4 * interval)
				count := 0
				answer := ws.PingHandler()
				ws.SetPingHandler(func(data string) error {
					count++
					return answer(data)
				})
				ping := func(string) error {
					return ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
				}
				if test.peerPings {
					ws.SetPongHandler(ping) // One after the other.
					if err := ping(""); err != nil {
						t.Error(err)
					}
				}
				if err := ws.SetReadDeadline(end); err != nil {
					t.Error(err)
				}
				if _, _, err := ws.ReadMessage(); err == nil {
					t.Error("got a message")
				}
				pings <- count
			})
			c := channel.New(ws, channel.Options{PingInterval: interval, Deadline: 10 * time.Second, Lazy: true})
			c.Wait()
			if got := <-pings; !test.want(got) {
				t.Errorf("it sent %d pings in four intervals", got)
			}
		})
	}
}

// BenchmarkConn_RoundTrip sends a message and has it back.
func BenchmarkConn_RoundTrip(b *testing.B) {
	ws := dial(b, func(ws *websocket.Conn) {
		c := channel.New(ws, channel.Options{})
		defer c.Wait()
		for {
			data, err := c.Receive()
			if err != nil {
				return
			}
			if err := c.Send(json.RawMessage(data)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	c := channel.New(ws, channel.Options{})
	defer c.Wait()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(note{N: 1}); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Receive(); err != nil {
			b.Fatal(err)
		}
	}
	c.Close(websocket.CloseNormalClosure, "")
}
