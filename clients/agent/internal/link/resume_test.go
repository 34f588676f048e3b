package link

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// shaken is how the TLS handshake of a request went.
type shaken struct{ resumed, mlkem bool }

// resumable is a tunnel server that tells how the handshakes of data connections went.
type resumable struct {
	*httptest.Server
	shaken chan shaken
}

func newResumable(t *testing.T) *resumable {
	s := &resumable{shaken: make(chan shaken, 10)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == wire.PathLink {
			upgrader := websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
			if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
				_ = ws.WriteJSON(wire.LinkMessage{Type: wire.LinkWelcome, Secret: "secret"})
				_ = ws.Close()
			}
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + acceptGUID))
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]), wire.Subprotocol)
		_ = conn.Close()
		s.shaken <- shaken{r.TLS.DidResume, r.TLS.CurveID == tls.X25519MLKEM768}
	}))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// open opens a data connection and returns how its handshake went.
func (s *resumable) open(t *testing.T, d *serverDialer) shaken {
	t.Helper()
	conn, err := d.stream(t.Context(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	return <-s.shaken
}

func TestServerDialer_ResumesTheLinksSession(t *testing.T) {
	s := newResumable(t)
	d := newTestDialer(s.Listener.Addr().String(), relaytest.Patience)
	for _, c := range []*tls.Config{d.websocket.TLSClientConfig, d.http.TLSClientConfig, d.resuming.TLSClientConfig} {
		c.InsecureSkipVerify = true
	}
	if got, want := s.open(t, d), (shaken{mlkem: true}); got != want {
		t.Errorf("without a link: %+v, want %+v", got, want)
	}
	d.sessions.Put("127.0.0.1", nil)
	ws, err := d.link(context.Background(), "ticket", "")
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = ws.ReadMessage() // The session's ticket comes with it.
	_ = ws.Close()
	for range 3 {
		if got, want := s.open(t, d), (shaken{resumed: true}); got != want {
			t.Errorf("after a link: %+v, want %+v", got, want)
		}
	}
	var key [32]byte
	_, _ = rand.Read(key[:])
	s.TLS.SetSessionTicketKeys([][32]byte{key})
	if got, want := s.open(t, d), (shaken{mlkem: true}); got != want {
		t.Errorf("once the session was forgotten: %+v, want %+v", got, want)
	}
	if got, want := s.open(t, d), (shaken{resumed: true}); got != want {
		t.Errorf("after that: %+v, want %+v", got, want)
	}
}
