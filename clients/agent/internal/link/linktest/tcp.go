package linktest

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// DialTCP is a player who connects to a public port. The test's end closes it.
func DialTCP(t testing.TB, host string, port int) *net.TCPConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(6 * relaytest.Patience))
	return c.(*net.TCPConn)
}

// Game runs a TCP server on host and returns its port. Serve handles one player,
// whose connection is closed when it returns. A host that cannot be listened on
// skips the test.
func Game(t testing.TB, host string, serve func(*net.TCPConn)) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("listen on %s: %v", host, err)
	}
	var players sync.WaitGroup
	players.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			players.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		players.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// Echo is a game that sends back what it receives, until its player ends.
func Echo(c *net.TCPConn) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 32<<10))
}

// Write sends text.
func Write(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// Expect reads as many bytes as want has, which must be those.
func Expect(t testing.TB, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q (%v), want %q", b[:n], err, want)
	}
}

// ReadToEnd reads the rest of c and returns how it ended: nil at EOF.
func ReadToEnd(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
	_, err := io.Copy(io.Discard, c)
	return err
}

// Refusal connects a player who should be refused. It returns the error that the
// player sees, on connecting or afterwards.
func Refusal(t testing.TB, port int) error {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer c.Close()
	return ReadToEnd(c)
}
