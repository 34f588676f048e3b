package server

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/connlimit"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

// listening serves requests, with the connections of callers bounded by limit.
func listening(t *testing.T, limit int, proxies ...netip.Prefix) (*connections, string) {
	t.Helper()
	c := &connections{
		proxies: proxies,
		people:  connlimit.New(connlimit.Options{Limit: limit, PerSource: limit - 2, ReplaceIdle: true}),
		proxied: connlimit.New(connlimit.Options{Limit: 4 * limit, ReplaceIdle: true}),
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			defer c.serve(r)()
		}),
		ConnContext: withConn, ConnState: c.track,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return c, listener.Addr().String()
}

// dialFrom opens a connection from an address of this machine.
func dialFrom(t *testing.T, local, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(local), 0))}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Skipf("no connection from %s: %v", local, err) // Not everywhere is all of 127.0.0.0/8 local.
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a request and reports whether it is answered.
func ask(conn net.Conn) bool {
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: panel\r\n\r\n"); err != nil {
		return false
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	return err == nil && response.Body.Close() == nil
}

func TestConnections_AFloodOfThemKeepsNobodyOut(t *testing.T) {
	for name, flood := range map[string]struct {
		from func(i int) string
		send string // Of a request.
	}{
		"silent from one source":          {func(int) string { return "127.0.0.2" }, ""},
		"slow headers from one source":    {func(int) string { return "127.0.0.2" }, "GET / HT"},
		"keep-alive from one source":      {func(int) string { return "127.0.0.2" }, "GET / HTTP/1.1\r\nHost: panel\r\n\r\n"},
		"slow headers from several":       {func(i int) string { return fmt.Sprintf("127.0.0.%d", 2+i%4) }, "GET / HT"},
		"slow headers, each from its own": {func(i int) string { return fmt.Sprintf("127.0.0.%d", 2+i) }, "GET / HT"},
	} {
		t.Run(name, func(t *testing.T) {
			c, address := listening(t, 20)
			for i := range 60 {
				conn := dialFrom(t, flood.from(i), address)
				_, _ = fmt.Fprint(conn, flood.send) // The server may have closed it.
			}
			for i := range 5 {
				if !ask(dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+i), address)) {
					t.Errorf("caller %d has no answer", i)
				}
			}
			await.Until(t, "at most 20 connections", func() bool { return c.people.Len() <= 20 })
		})
	}
}

func TestConnections_AProxyIsNotBoundedAsOneSource(t *testing.T) {
	c, address := listening(t, 20, netip.MustParsePrefix("127.0.0.2/32"))
	var proxied []net.Conn
	for range 40 {
		proxied = append(proxied, dialFrom(t, "127.0.0.2", address))
	}
	for i, conn := range proxied {
		if !ask(conn) {
			t.Errorf("connection %d of the proxy has no answer", i)
		}
	}
	if c.people.Len() != 0 || c.proxied.Len() != 40 {
		t.Errorf("%d connections of callers and %d of proxies", c.people.Len(), c.proxied.Len())
	}
}

// A health check of this machine gets in while callers have all connections that they may
// have, and each of them serves a request.
func TestConnections_ThisMachineHasItsOwn(t *testing.T) {
	c := newConnections(nil)
	limit, _ := connectionBounds(openfiles.Limit())
	for _, from := range []string{"127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"} {
		if c.of(peer{from: from}) != c.proxied {
			t.Errorf("%s counts as another machine", from)
		}
	}
	for i := range limit + 1 {
		conn := peer{from: fmt.Sprintf("192.0.%d.%d:1", i/250, i%250)}
		c.track(conn, http.StateNew)
		c.of(conn).Begin(conn)
	}
	c.track(peer{from: "127.0.0.1:2"}, http.StateNew)
	if c.people.Len() != limit || c.people.Closed(connlimit.Full) != 1 || c.proxied.Len() != 1 {
		t.Errorf("%d connections of callers and %d of this machine", c.people.Len(), c.proxied.Len())
	}
}

// peer is a connection from an address.
type peer struct {
	net.Conn
	from string
}

func (p peer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from)) }
func (p peer) Close() error         { return nil }

func TestConnections_BoundsFollowTheFilesOfTheProcess(t *testing.T) {
	for files, want := range map[int][2]int{
		0: {8192, 1 << 16}, 128: {64, 64}, 1024: {128, 512}, 20_000: {2500, 10_000}, 1 << 19: {8192, 1 << 16},
	} {
		if connections, channels := connectionBounds(files); connections != want[0] || channels != want[1] {
			t.Errorf("of %d files: %d connections and %d control channels", files, connections, channels)
		}
	}
}
