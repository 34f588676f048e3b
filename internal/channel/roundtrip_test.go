package channel_test

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestConn_MeasuresTheRoundTripOfItsPings(t *testing.T) {
	const delay = 30 * time.Millisecond
	ws := dial(t, func(peer *websocket.Conn) {
		answer := peer.PingHandler()
		peer.SetPingHandler(func(payload string) error {
			time.Sleep(delay) // The line.
			return answer(payload)
		})
		for {
			if _, _, err := peer.ReadMessage(); err != nil {
				return
			}
			// An answer to no ping, as of a peer that makes it up.
			_ = peer.WriteControl(websocket.PongMessage, []byte("0"), time.Now().Add(time.Second))
		}
	})
	c := channel.New(ws, channel.Options{PingInterval: 10 * delay})
	receive(t, c)
	if err := c.Send("made up"); err != nil {
		t.Fatal(err)
	}
	if trip := c.RoundTrip(); trip != 0 {
		t.Errorf("%v before a ping was answered", trip)
	}
	await.Until(t, "the round trip", func() bool { return c.RoundTrip() > 0 })
	if trip := c.RoundTrip(); trip < delay {
		t.Errorf("the round trip is %v, want at least %v", trip, delay)
	}
}
