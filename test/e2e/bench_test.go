package e2e

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// both runs a benchmark against a game directly and through the tunnel.
func both(b *testing.B, protocol types.AllocationCreateProtocol, port int, run func(b *testing.B, addr string)) {
	b.Helper()
	public := sharedFor(b).expose(b, protocol, port, nil)
	b.Run("direct", func(b *testing.B) { run(b, loopback(port)) })
	b.Run("tunnel", func(b *testing.B) { run(b, public) })
}

// BenchmarkRoundTrip measures eight bytes to the game and back, on one connection.
func BenchmarkRoundTrip(b *testing.B) {
	both(b, types.CreateTCP, startEcho(b).port, func(b *testing.B, addr string) {
		player := join(b, addr)
		for b.Loop() {
			if _, err := exchange(player, 1, patience); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkJoin measures connecting, a round trip and hanging up.
func BenchmarkJoin(b *testing.B) {
	both(b, types.CreateTCP, startEcho(b).port, func(b *testing.B, addr string) {
		for b.Loop() {
			if err := plays(b.Context(), addr); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEcho measures bytes to the game and back at once, on one connection;
// its bytes per second are those of one direction.
func BenchmarkEcho(b *testing.B) {
	const chunk = 1 << 20
	both(b, types.CreateTCP, startEcho(b).port, func(b *testing.B, addr string) {
		player, sent := join(b, addr), make(chan error, 1)
		stop := make(chan struct{})
		go func() {
			for content := noise(chunk); ; {
				select {
				case <-stop:
					sent <- player.CloseWrite()
					return
				default:
				}
				if _, err := player.Write(content); err != nil {
					sent <- err
					return
				}
			}
		}()
		b.SetBytes(chunk)
		buf := make([]byte, chunk)
		for b.Loop() {
			if _, err := io.ReadFull(player, buf); err != nil {
				b.Fatal(err)
			}
		}
		close(stop)
		if _, err := io.Copy(io.Discard, player); err != nil {
			b.Error(err)
		}
		if err := <-sent; err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkDatagrams measures datagrams of 100 bytes to the game and back, up to
// 64 of them on their way; an operation is one that came back.
func BenchmarkDatagrams(b *testing.B) {
	both(b, types.CreateUDP, startUDPEcho(b), func(b *testing.B, addr string) {
		const window = 64
		conn, err := net.Dial("udp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		buf, lost := make([]byte, 100), 0
		send := func(n int) {
			for range n {
				binary.BigEndian.PutUint64(buf, uint64(time.Now().UnixNano()))
				if _, err := conn.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		}
		send(window)
		for b.Loop() {
			for {
				if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					b.Fatal(err)
				}
				_, err := conn.Read(buf)
				if err == nil {
					break
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					b.Fatal(err)
				}
				// None came for a second: all that were on their way are lost.
				lost += window
				send(window)
			}
			send(1)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
		b.ReportMetric(float64(lost), "lost")
	})
}
