package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// serving runs the HTTP server of a panel with a handler and returns its address.
func serving(t *testing.T, handler http.Handler, change func(*http.Server)) (address string) {
	t.Helper()
	s, err := New(Options{Database: Database{URL: "postgres://localhost/x"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.routes.Store(&handler)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := s.newHTTP(t.Context())
	change(server)
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		group.Wait()
	})
	return listener.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestHTTP_RespondsWhenTheBodyDoesNotArrive(t *testing.T) {
	starting := startingRoutes(slog.New(slog.DiscardHandler))
	conn := dial(t, serving(t, starting, func(s *http.Server) {
		if s.ReadTimeout == 0 {
			t.Error("there is no read timeout")
			return
		}
		s.ReadTimeout = 100 * time.Millisecond
	}))
	if _, err := fmt.Fprint(conn, "POST /api/tunnel/device/approve HTTP/1.1\r\nHost: panel\r\nContent-Length: 10\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn) // Until the panel closes the connection.
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("answered %q, %v", answer, err)
	}
}

func TestHTTP_ClosesConnectionsThatDoNotRead(t *testing.T) {
	written := make(chan error, 1)
	large := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, 64<<20)) // More than sockets buffer.
		written <- err
	})
	conn := dial(t, serving(t, large, func(s *http.Server) {
		if s.WriteTimeout == 0 {
			t.Error("there is no write timeout")
			return
		}
		s.WriteTimeout = 100 * time.Millisecond
	}))
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: panel\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-written:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing the response ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the response is still being written")
	}
}
