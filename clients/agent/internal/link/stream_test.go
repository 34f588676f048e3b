package link_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// inUse returns how many goroutines and bytes of heap are in use.
func inUse() (goroutines int, heap uint64) {
	runtime.GC()
	runtime.GC() // Pools release what they hold in two cycles.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapInuse
}

func TestTunnel_ServerSpeaksFirst(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "SSH-2.0-game\r\n")
	}), nil)
	player := d.Join(port)
	linktest.Expect(t, player, "SSH-2.0-game\r\n")
	if err := linktest.ReadToEnd(player); err != nil {
		t.Errorf("the game hung up: the player sees %v, want EOF", err)
	}
}

func TestTunnel_HalfClosePassesBothWays(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		request, err := io.ReadAll(c) // Only half-close ends it.
		if err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintf(c, "%d bytes", len(request))
		_ = c.CloseWrite()
		if late, err := io.ReadAll(c); err != nil || len(late) != 0 {
			t.Errorf("after the answer: %q, %v", late, err)
		}
	}), nil)
	player := d.Join(port)
	linktest.Write(t, player, "a request")
	_ = player.CloseWrite()
	linktest.Expect(t, player, "9 bytes")
	if err := linktest.ReadToEnd(player); err != nil {
		t.Error(err)
	}

	port = d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "last words")
		_ = c.CloseWrite()
		reply, err := io.ReadAll(c)
		if err != nil || string(reply) != "are read" {
			t.Errorf("the player's half after the game's end: %q, %v", reply, err)
		}
	}), nil)
	player = d.Join(port)
	linktest.Expect(t, player, "last words")
	if err := linktest.ReadToEnd(player); err != nil {
		t.Error(err)
	}
	linktest.Write(t, player, "are read")
	_ = player.Close()
}

func TestTunnel_RefusedLocalPortRefusesThePlayerAtOnce(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, relaytest.FreePort(t), nil)
	for range 20 {
		start := time.Now()
		if err := linktest.Refusal(t, port); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the player sees %v, want a reset", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	if n := d.Server.Stats().Handshakes; n > 10 {
		t.Errorf("%d handshakes for 20 refused players: refusals must not cost data connections", n)
	}
}

func TestTunnel_ResetPassesBothWays(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	seen := make(chan error, 1)
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		b := make([]byte, 1)
		_, _ = io.ReadFull(c, b)
		if b[0] == 'r' {
			tcpstream.Reset(c)
			return
		}
		_, _ = c.Write(b)
		_, err := io.Copy(io.Discard, c)
		seen <- err
	}), nil)
	player := d.Join(port)
	linktest.Write(t, player, "r")
	if err := linktest.ReadToEnd(player); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the game reset: the player sees %v", err)
	}
	player = d.Greet(port)
	tcpstream.Reset(player)
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the player reset: the game sees %v", err)
	}
}

func TestTunnel_IPv6AllTheWay(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "::1", linktest.Echo), func(a *types.ClientAllocation) {
		a.LocalHost = "::1"
	})
	for _, host := range []string{"::1", "127.0.0.1"} {
		player := linktest.DialTCP(t, host, port)
		linktest.Write(t, player, "hello")
		linktest.Expect(t, player, "hello")
	}
}

func TestTunnel_ManyPlayersMoveManyBytes(t *testing.T) {
	const players, size = 200, 1 << 20
	// With the race detector and neighbours, 200 handshakes beside 200 transfers
	// can take longer than a player should wait.
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.JoinWait = time.Minute }})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	// One player first, so that the baseline has what the first one brings.
	first := d.Greet(port)
	_ = first.Close()
	goroutines, heap := inUse()

	var all sync.WaitGroup
	for i := range players {
		c := d.Join(port)
		all.Go(func() {
			defer c.Close()
			source := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
			sent, received := sha256.New(), sha256.New()
			go func() {
				_, _ = io.CopyN(io.MultiWriter(c, sent), source, size)
				_ = c.CloseWrite()
			}()
			n, err := io.Copy(received, c)
			if err != nil || n != size || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
				t.Errorf("player %d got %d bytes back (%v), not the %d sent", i, n, err, size)
			}
		})
	}
	all.Wait()
	d.Server.AwaitStats(t, "no players", func(s relay.Stats) bool { return s.Players == 0 })
	// Warm data connections may stay, with the goroutines of their two ends.
	held := int(d.Server.Stats().DataConnections)
	await.Until(t, "the baseline of goroutines and memory", func() bool {
		nowGoroutines, nowHeap := inUse()
		return nowGoroutines <= goroutines+4*held && nowHeap <= heap+uint64(held)*100<<10+4<<20
	})
}

func TestTunnel_PlayersInTurnShareOneDataConnection(t *testing.T) {
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.Warm = -1 }})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	for i := range 100 {
		player := d.Greet(port)
		switch i % 3 {
		case 0:
			_ = player.CloseWrite()
			if err := linktest.ReadToEnd(player); err != nil {
				t.Fatal(err)
			}
		case 1:
			_ = player.Close()
		case 2:
			tcpstream.Reset(player)
		}
		d.Server.AwaitStats(t, "the player's end", func(s relay.Stats) bool { return s.Players == 0 })
	}
	if n := d.Server.Stats().Handshakes; n != 1 {
		t.Errorf("%d handshakes for 100 players in turn, want 1", n)
	}
}

func TestTunnel_StalledPlayerDoesNotBlockOthers(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		first := make([]byte, 1)
		_, _ = io.ReadFull(c, first)
		if first[0] == 'f' { // Flood.
			chunk := make([]byte, 64<<10)
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}
		_, _ = c.Write(first)
		linktest.Echo(c)
	}), nil)
	stalled := d.Join(port)
	linktest.Write(t, stalled, "f") // And read nothing.
	for range 3 {
		player := d.Join(port)
		for range 100 {
			linktest.Write(t, player, "ping")
			linktest.Expect(t, player, "ping")
		}
		_ = player.Close()
	}
}

func TestTunnel_WarmConnectionsFollowDemand(t *testing.T) {
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.WarmIdle = time.Millisecond }})
	if n := d.Server.Stats().DataConnections; n != 0 {
		t.Errorf("%d data connections before anybody played", n)
	}
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	var players []*net.TCPConn
	for range 40 {
		player := d.Greet(port)
		players = append(players, player)
	}
	d.Server.AwaitStats(t, "more data connections than players", func(s relay.Stats) bool { return s.DataConnections > 45 })
	for _, player := range players {
		_ = player.Close()
	}
	d.Server.AwaitStats(t, "the end of surplus data connections", func(s relay.Stats) bool { return s.DataConnections <= 20 })
}

func TestTunnel_PlayerIsAnnouncedByProxyProtocol(t *testing.T) {
	for _, version := range []types.ProxyProtocol{types.ProxyProtocolV1, types.ProxyProtocolV2} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(string(version)+" "+host, func(t *testing.T) {
				headers := make(chan *proxyproto.Header, 1)
				d := linktest.New(t, linktest.Options{})
				port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
					r := bufio.NewReader(c)
					header, err := proxyproto.Read(r)
					if err != nil {
						t.Error(err)
					}
					headers <- header
					_, _ = io.Copy(c, r)
				}), func(a *types.ClientAllocation) { a.Options.ProxyProtocol = &version })
				player := linktest.DialTCP(t, host, port)
				header := <-headers // Before the player says anything.
				source, destination, ok := header.TCPAddrs()
				if !ok || source.String() != player.LocalAddr().String() || destination.String() != player.RemoteAddr().String() {
					t.Errorf("header %+v, want %s -> %s", header, player.LocalAddr(), player.RemoteAddr())
				}
				linktest.Write(t, player, "hello")
				linktest.Expect(t, player, "hello")
			})
		}
	}
}
