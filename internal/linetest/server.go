package linetest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// Server starts a server of HTTP, or of HTTPS if it is secure, at an address and port, 0
// for any. The test's end closes it. An address that cannot be listened on skips the
// test.
func Server(t testing.TB, address string, port int, secure bool, handler http.Handler) *httptest.Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	s := httptest.NewUnstartedServer(handler)
	_ = s.Listener.Close() // Its own.
	s.Listener = l
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// Port returns the port of a server.
func Port(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }
