package link_test

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
)

// benchmarkPaths measures the same traffic through the tunnel and, for comparison,
// through two plain TCP proxies in a row, the limit of its topology.
func benchmarkPaths(b *testing.B, serve func(*net.TCPConn), run func(b *testing.B, port int)) {
	b.Run("tunnel", func(b *testing.B) {
		d := linktest.New(b, linktest.Options{})
		run(b, d.Publish(types.ProtocolTCP, linktest.Game(b, "127.0.0.1", serve), nil))
	})
	b.Run("proxies", func(b *testing.B) {
		run(b, plainProxy(b, plainProxy(b, linktest.Game(b, "127.0.0.1", serve))))
	})
}

// plainProxy copies with buffers as large as those of the tunnel, without splice.
func plainProxy(b *testing.B, target int) int {
	return linktest.Game(b, "127.0.0.1", func(near *net.TCPConn) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(target)))
		if err != nil {
			return
		}
		far := c.(*net.TCPConn)
		defer far.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.CopyBuffer(struct{ io.Writer }{near}, struct{ io.Reader }{far}, make([]byte, 32<<10))
			_ = near.CloseWrite()
		}()
		_, _ = io.CopyBuffer(struct{ io.Writer }{far}, struct{ io.Reader }{near}, make([]byte, 32<<10))
		_ = far.CloseWrite()
		<-done
	})
}

func BenchmarkTunnel_Download(b *testing.B) {
	data := make([]byte, 256<<10)
	flood := func(c *net.TCPConn) {
		for {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	}
	benchmarkPaths(b, flood, func(b *testing.B, port int) {
		player := linktest.DialTCP(b, "127.0.0.1", port)
		buffer := make([]byte, 1<<20)
		b.SetBytes(int64(len(buffer)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := io.ReadFull(player, buffer); err != nil {
				b.Fatal(err)
			}
		}
		_ = player.SetLinger(0)
		_ = player.Close()
	})
}

func BenchmarkTunnel_RoundTrip(b *testing.B) {
	benchmarkPaths(b, linktest.Echo, func(b *testing.B, port int) {
		player := linktest.DialTCP(b, "127.0.0.1", port)
		message := make([]byte, 64)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := player.Write(message); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(player, message); err != nil {
				b.Fatal(err)
			}
		}
		_ = player.Close()
	})
}

func BenchmarkTunnel_Join(b *testing.B) {
	benchmarkPaths(b, linktest.Echo, func(b *testing.B, port int) {
		message := make([]byte, 1)
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = c.Write(message)
			if _, err := io.ReadFull(c, message); err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // Leaves no port in TIME_WAIT.
			_ = c.Close()
		}
	})
}

func BenchmarkTunnel_Datagrams(b *testing.B) {
	d := linktest.New(b, linktest.Options{Server: func(o *relay.Options) { o.BindHost = "127.0.0.1" }})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(b, 0, linktest.EchoUDP), nil)
	player := linktest.DialUDP(b, "127.0.0.1", port)
	payload, got := make([]byte, 200), make([]byte, 1500)
	_ = player.SetReadDeadline(time.Now().Add(time.Minute))
	b.ReportAllocs()
	for sent := 0; b.Loop(); sent++ {
		if sent >= 64 {
			if _, err := player.Read(got); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := player.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
}
