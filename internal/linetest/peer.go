package linetest

import (
	"net"
	"strconv"
	"sync"
	"testing"
)

// Listen accepts connections at an address and port, 0 for any, and returns the port.
// Serve handles one connection, which is closed when it returns. The test's end closes
// them all. An address that cannot be listened on skips the test.
func Listen(t testing.TB, address string, port int, serve func(net.Conn)) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	var mu sync.Mutex
	open := map[net.Conn]struct{}{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = struct{}{}
			mu.Unlock()
			serving.Go(func() {
				serve(conn)
				_ = conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// Useless are peers that accept a connection and are of no use, by what they do.
var Useless = map[string]func(net.Conn){
	"silent":    Silent,
	"resetting": func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) },
	"garbled": func(conn net.Conn) {
		_, _ = conn.Write([]byte("SSH-2.0-server\r\n"))
		Silent(conn)
	},
}

// Silent reads until the other end closes and says nothing.
func Silent(conn net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}
