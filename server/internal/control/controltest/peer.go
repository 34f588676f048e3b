// Package controltest is a device's end of a control channel, for tests.
package controltest

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Patience bounds every wait of a test.
const Patience = 20 * time.Second

// Peer is a device's end of a control channel. It belongs to the test's
// goroutine.
type Peer struct {
	// WS is for what Send cannot do, such as raw messages.
	WS *websocket.Conn

	t        testing.TB
	messages chan any
	ended    chan error // The reader's error; put back after each receive.
}

// NewPeer returns a Peer on an open WebSocket, which it closes when the test ends.
func NewPeer(t testing.TB, ws *websocket.Conn) *Peer {
	p := &Peer{WS: ws, t: t, messages: make(chan any, 64), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- p.read()
	}()
	t.Cleanup(func() {
		ws.Close()
		<-done
	})
	return p
}

func (p *Peer) read() error {
	for {
		_, data, err := p.WS.ReadMessage()
		if err != nil {
			return err
		}
		var message types.ControlMessage
		if err := json.Unmarshal(data, &message); err != nil {
			return err
		}
		value, err := message.ValueByDiscriminator()
		if err != nil {
			return err
		}
		p.messages <- value
	}
}

// Hello sends a hello. relay is nil for a client.
func (p *Peer) Hello(relay *types.RelayEndpoint) {
	p.t.Helper()
	p.Send(types.Hello{Type: types.TypeHello, AgentVersion: "0.0.0-test", Platform: "test/test", Relay: relay})
}

// Send sends a message.
func (p *Peer) Send(message any) {
	p.t.Helper()
	if err := p.WS.WriteJSON(message); err != nil {
		p.t.Fatal(err)
	}
}

// Next waits for the next message, which must be an M.
func Next[M any](p *Peer) M {
	p.t.Helper()
	var zero M
	select {
	case message := <-p.messages:
		m, ok := message.(M)
		if !ok {
			p.t.Fatalf("got a %T in place of a %T: %+v", message, zero, message)
		}
		return m
	case err := <-p.ended:
		p.t.Fatalf("channel ended: %v", err)
	case <-time.After(Patience):
		p.t.Fatalf("no %T", zero)
	}
	return zero
}

// Waiting returns the number of messages that were received and not yet taken.
func (p *Peer) Waiting() int { return len(p.messages) }

// Open reports whether the channel has not ended.
func (p *Peer) Open() bool {
	select {
	case err := <-p.ended:
		p.ended <- err
		return false
	default:
		return true
	}
}

// Closed waits until the channel ends, at most for limit, and returns the close code.
func (p *Peer) Closed(limit time.Duration) int {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		var closed *websocket.CloseError
		if !errors.As(err, &closed) {
			p.t.Fatalf("ended without a close frame: %v", err)
		}
		return closed.Code
	case <-time.After(limit):
		p.t.Fatalf("still open after %v", limit)
	}
	return 0
}

// Stays waits for a message or the end of the channel, and reports whether a message
// came first.
func (p *Peer) Stays() bool {
	select {
	case <-p.messages:
		return true
	case err := <-p.ended:
		p.ended <- err
		return false
	case <-time.After(Patience):
		return false
	}
}

// Eventually polls a condition for which there is no signal until it is met.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
