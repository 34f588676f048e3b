// Package wstest makes both ends of a WebSocket over TLS for tests.
package wstest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gorilla/websocket"
)

// Options say what the WebSocket is made on.
type Options struct {
	// Listener and Conn wrap the server's listener and the client's socket; nil
	// leaves them as they are.
	Listener func(net.Listener) net.Listener
	Conn     func(*net.TCPConn) (net.Conn, error)
	// Server and Client are the subprotocols that each end supports.
	Server, Client []string
}

// Pair returns both ends, which are closed when the test ends.
func Pair(t testing.TB, o Options) (server, client *websocket.Conn) {
	t.Helper()
	upgraded := make(chan *websocket.Conn, 1)
	upgrader := websocket.Upgrader{Subprotocols: o.Server}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
		}
		upgraded <- ws
	}))
	if o.Listener != nil {
		s.Listener = o.Listener(s.Listener)
	}
	s.StartTLS()
	defer s.Close()
	dialer := websocket.Dialer{
		Subprotocols:    o.Client,
		TLSClientConfig: s.Client().Transport.(*http.Transport).TLSClientConfig.Clone(),
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil || o.Conn == nil {
				return conn, err
			}
			return o.Conn(conn.(*net.TCPConn))
		},
	}
	dialer.TLSClientConfig.NextProtos = nil // A WebSocket is not upgraded from HTTP/2.
	client, response, err := dialer.Dial("wss"+s.URL[len("https"):], nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	server = <-upgraded
	t.Cleanup(func() { _ = server.Close(); _ = client.Close() })
	return server, client
}
