package linktest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// UDPGame answers every datagram for which serve returns something, from the port
// that it was sent to; 0 is any port. It returns its port.
func UDPGame(t testing.TB, port int, serve func(payload []byte, from netip.AddrPort) []byte) int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answer := serve(b[:n], from); answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().(*net.UDPAddr).Port
}

// EchoUDP is a UDP game that sends back what it receives.
func EchoUDP(payload []byte, _ netip.AddrPort) []byte { return payload }

// DialUDP is a player with a socket of its own. A host that cannot be reached skips
// the test, whose end closes the socket.
func DialUDP(t testing.TB, host string, port int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(host), Port: port})
	if err != nil {
		t.Skipf("reach %s: %v", host, err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Ask sends a datagram and returns the next one received.
func Ask(t testing.TB, c *net.UDPConn, payload []byte) []byte {
	t.Helper()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	return Answer(t, c)
}

// Answer returns the next datagram received.
func Answer(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	b, err := NextAnswer(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// NextAnswer returns the next datagram received, or why there is none.
func NextAnswer(c *net.UDPConn) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	return b[:n], err
}

// Silent reports whether nothing is received for a while.
func Silent(c *net.UDPConn, wait time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 64<<10))
	return errors.Is(err, os.ErrDeadlineExceeded)
}
