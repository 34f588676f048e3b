package udpsock_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
)

// closedPort returns an address at which nothing listens, and how to listen there.
func closedPort(t *testing.T, network, ip string) (netip.AddrPort, func() *net.UDPConn) {
	t.Helper()
	at := &net.UDPAddr{IP: net.ParseIP(ip)}
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP(network, at)
		if err != nil {
			t.Skipf("listen on %s: %v", at, err)
		}
		at = c.LocalAddr().(*net.UDPAddr)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	_ = listen().Close()
	return at.AddrPort(), listen
}

func TestConn_ReportsRefusalsUntilItIsConnected(t *testing.T) {
	for name, c := range map[string]struct{ network, ip string }{
		"IPv4":            {"udp4", "127.0.0.1"},
		"another of IPv4": {"udp4", "127.5.6.7"},
		"IPv6":            {"udp6", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			peer, listen := closedPort(t, c.network, c.ip)
			conn, err := udpsock.Listen(t.Context(), c.network, net.JoinHostPort(c.ip, "0"), udpsock.Options{Refusals: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			poller, err := udpsock.NewPoller()
			if err != nil {
				t.Fatal(err)
			}
			defer poller.Close()
			if err := poller.Add(conn, 7); err != nil {
				t.Fatal(err)
			}
			to := conn.Endpoint(peer)
			write := func(text string) {
				t.Helper()
				if n := conn.Write([]udpsock.Datagram{{To: &to, Data: []byte(text)}}); n != 0 {
					t.Fatalf("%q is not sent", text)
				}
			}
			// One error for each datagram, or none for one whose error a write has seen.
			for range 3 {
				write("refused")
				if _, err := poller.Wait(nil); err != nil {
					t.Fatal(err)
				}
				if batch, err := conn.TryRead(); batch != nil || !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatalf("got %v, %v", batch, err)
				}
			}
			write("refused")
			write("refused, and sent although the error of the last one is not read")
			game := listen()
			_ = game.SetReadDeadline(time.Now().Add(await.Timeout))
			b := make([]byte, 100)
			for text := ""; text != "taken"; {
				write("taken")
				n, from, err := game.ReadFromUDPAddrPort(b)
				if err != nil {
					t.Fatal(err)
				}
				text = string(b[:n])
				if _, err := game.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
					t.Fatal(err)
				}
			}
			// The errors are gone: what is reported now is the answer, after which
			// nothing is.
			for answered := false; !answered; {
				if _, err := poller.Wait(nil); err != nil {
					t.Fatal(err)
				}
				batch, err := conn.TryRead()
				if err != nil {
					if !errors.Is(err, unix.ECONNREFUSED) {
						t.Fatal(err)
					}
					continue
				}
				if batch == nil {
					continue
				}
				answered = batch.Endpoint(0) == to
				batch.Release()
			}
			if err := conn.Connect(to); err != nil {
				t.Fatal(err)
			}
			if n := conn.Write([]udpsock.Datagram{{Data: []byte("connected")}}); n != 0 {
				t.Fatal("not sent")
			}
			if n, _, err := game.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "connected" {
				t.Fatalf("%q, %v", b[:n], err)
			}
			other, err := net.ListenUDP(c.network, &net.UDPAddr{IP: net.ParseIP(c.ip)})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			_, _ = other.WriteToUDPAddrPort([]byte("a stranger's"), conn.LocalAddr())
			if _, err := game.WriteToUDPAddrPort([]byte("the peer's"), conn.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			batch, err := conn.Read()
			if err != nil {
				t.Fatal(err)
			}
			defer batch.Release()
			if string(batch.Data(0)) != "the peer's" {
				t.Errorf("got %q", batch.Data(0))
			}
		})
	}
}
