package link_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

const (
	capped  types.BitsPerSecond = 4_000_000
	trickle types.BitsPerSecond = 80_000
)

// setRules gives the first allocation of a data plane rules.
func setRules(d *linktest.DataPlane, protocol types.Protocol, port int, r types.AllocationRules) {
	d.T.Helper()
	a := relaytest.Allocation(1, d.Client, protocol, port)
	a.Rules = &r
	d.Panel.Put(a)
	d.Panel.AwaitReport(1, types.ReportReady)
}

// eachStream tests what holds for players' TCP bytes with encryption and without.
func eachStream(t *testing.T, test func(t *testing.T, o linktest.Options)) {
	t.Run("encrypted", func(t *testing.T) { test(t, linktest.Options{}) })
	t.Run("plain", func(t *testing.T) {
		test(t, linktest.Options{
			Server: func(o *relay.Options) { o.PlainStreams = true },
			Links:  func(o *link.Options) { o.PlainStreams = true },
		})
	})
}

// fill writes until the connection ends.
func fill(c net.Conn) {
	for data := make([]byte, 64<<10); ; {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

// receive reads until the connection ends, and counts.
func receive(c net.Conn, bytes *atomic.Int64) {
	for data := make([]byte, 64<<10); ; {
		n, err := c.Read(data)
		bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// wantBandwidth fails a test unless bytes are counted at a speed within 5 % of a rule,
// after the first burst. A busy machine may have to try again to be as fast, and what
// it reads late comes at once, but all in all it must never be faster.
func wantBandwidth(t *testing.T, what string, bytes *atomic.Int64, since time.Time, want types.BitsPerSecond) {
	t.Helper()
	const burst = 0.1 // Seconds.
	ratio := func(bytes int64, took float64) float64 { return float64(bytes) * 8 / took / float64(want) }
	slow := 0.0
	for try := 0; try < 10 && slow < 0.95; try++ {
		start, before := time.Now(), bytes.Load()
		time.Sleep(2 * time.Second)
		slow = ratio(bytes.Load()-before, time.Since(start).Seconds())
	}
	if fast := ratio(bytes.Load(), time.Since(since).Seconds()+burst); slow < 0.95 || fast > 1.05 {
		t.Errorf("%s: at best %.3f of the rule, all in all %.3f", what, slow, fast)
	}
}

func TestTunnel_StreamsKeepTheirBandwidth(t *testing.T) {
	eachStream(t, func(t *testing.T, o linktest.Options) {
		for name, rules := range map[string]types.AllocationRules{
			"all":         {DownloadBitsPerSecond: new(capped), UploadBitsPerSecond: new(capped)},
			"each player": {PlayerDownloadBitsPerSecond: new(capped), PlayerUploadBitsPerSecond: new(capped)},
		} {
			t.Run(name, func(t *testing.T) {
				var up, down atomic.Int64
				d := linktest.New(t, o)
				port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
					go fill(c)
					receive(c, &up)
				}), nil)
				setRules(d, types.ProtocolTCP, port, rules)
				var ends sync.WaitGroup
				defer ends.Wait()
				start := time.Now()
				player := d.Join(port)
				defer player.Close()
				ends.Go(func() { fill(player) })
				ends.Go(func() { receive(player, &down) })
				wantBandwidth(t, "download", &down, start, capped)
				wantBandwidth(t, "upload", &up, start, capped)
			})
		}
	})
}

// roundTrips measures 50 packets per second of a game for a while, and returns the
// median of their round trips.
func roundTrips(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	const n = 60
	took := make([]time.Duration, 0, n)
	packet, got := make([]byte, 100), make([]byte, 2000)
	for i := range n {
		binary.BigEndian.PutUint32(packet, uint32(i))
		start := time.Now()
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(start.Add(await.Timeout))
		if _, err := io.ReadAtLeast(c, got, len(packet)); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		took = append(took, time.Since(start))
		time.Sleep(max(0, 20*time.Millisecond-time.Since(start)))
	}
	slices.Sort(took)
	return took[n/2]
}

// wantRoundTrip fails a test unless a round trip beside a download is about what it was.
func wantRoundTrip(t *testing.T, calm, beside time.Duration) {
	t.Helper()
	if beside > 2*calm+3*time.Millisecond {
		t.Errorf("the game's round trip is %v beside the download, and was %v", beside, calm)
	}
}

// tcpFrom is a player at an address of this machine.
func tcpFrom(t *testing.T, address string, port int) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Skipf("connect from %s: %v", address, err)
	}
	return c
}

func TestTunnel_AGameBesideCappedDownloadsKeepsItsRoundTrip(t *testing.T) {
	for name, c := range map[string]struct {
		downloads int
		from      func(i int) string
		rules     types.AllocationRules
	}{
		"TCP, five of one address": {5, func(int) string { return "127.0.0.1" },
			types.AllocationRules{DownloadBitsPerSecond: new(capped)}},
		"TCP, 50 of as many addresses": {50, func(i int) string { return fmt.Sprintf("127.0.5.%d", 1+i) },
			types.AllocationRules{DownloadBitsPerSecond: new(capped)}},
		"TCP, 50 of as many addresses, each capped": {50, func(i int) string { return fmt.Sprintf("127.0.5.%d", 1+i) },
			types.AllocationRules{PlayerDownloadBitsPerSecond: new(trickle)}},
	} {
		t.Run(name, func(t *testing.T) {
			d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.Unanswered = 1000 }})
			port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
				b := make([]byte, 1)
				if _, err := c.Read(b); err == nil && b[0] == 'd' {
					fill(c)
				}
				linktest.Echo(c)
			}), nil)
			setRules(d, types.ProtocolTCP, port, c.rules)
			game := d.Join(port)
			linktest.Write(t, game, "g")
			calm := roundTrips(t, game)
			var down atomic.Int64
			var ends sync.WaitGroup
			defer ends.Wait()
			for i := range c.downloads {
				player := tcpFrom(t, c.from(i), port)
				defer player.Close()
				linktest.Write(t, player, "d")
				if _, err := io.ReadFull(player, make([]byte, 1)); err != nil {
					t.Fatalf("download %d: %v", i, err)
				}
				ends.Go(func() { receive(player, &down) })
			}
			await.Until(t, "the downloads", func() bool { return down.Load() > int64(capped)/40 })
			wantRoundTrip(t, calm, roundTrips(t, game))
		})
	}
	t.Run("UDP", func(t *testing.T) {
		d := linktest.New(t, linktest.Options{})
		big := make([]byte, 1200)
		port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, _ netip.AddrPort) []byte {
			if payload[0] == 'd' {
				return big
			}
			return payload
		}), nil)
		setRules(d, types.ProtocolUDP, port, types.AllocationRules{DownloadBitsPerSecond: new(capped)})
		game := linktest.DialUDP(t, "127.0.0.1", port)
		calm := roundTrips(t, game)
		var down atomic.Int64
		var ends sync.WaitGroup
		defer ends.Wait()
		start := time.Now()
		for range 2 {
			player := linktest.DialUDP(t, "127.0.0.1", port)
			defer player.Close()
			ends.Go(func() { receive(player, &down) })
			ends.Go(func() { // Each asks for more than the whole bandwidth, and not for the processors.
				for tick := time.Tick(2 * time.Millisecond); ; <-tick {
					if _, err := player.Write([]byte("d")); errors.Is(err, net.ErrClosed) {
						return
					}
				}
			})
		}
		d.Server.AwaitStats(t, "dropped datagrams", func(s relay.Stats) bool {
			return s.Dropped[string(publicport.RefusedBandwidth)] > 100
		})
		wantRoundTrip(t, calm, roundTrips(t, game)) // A lost packet fails it.
		wantBandwidth(t, "download", &down, start, capped)
	})
}

func TestTunnel_BandwidthChangesWhileStreamsRun(t *testing.T) {
	eachStream(t, func(t *testing.T, o linktest.Options) {
		var up, down atomic.Int64
		d := linktest.New(t, o)
		port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
			go fill(c)
			receive(c, &up)
		}), nil)
		player := d.Join(port)
		var ends sync.WaitGroup
		defer ends.Wait()
		defer player.Close()
		ends.Go(func() { fill(player) })
		ends.Go(func() { receive(player, &down) })
		fast := func(what string) {
			for name, bytes := range map[string]*atomic.Int64{"upload": &up, "download": &down} {
				before := bytes.Load()
				await.Until(t, what+": "+name, func() bool { return bytes.Load()-before > 4<<20 })
			}
		}
		fast("no rule")
		for what, rules := range map[string]types.AllocationRules{
			"of all":    {DownloadBitsPerSecond: new(trickle), UploadBitsPerSecond: new(trickle)},
			"of player": {PlayerDownloadBitsPerSecond: new(trickle), PlayerUploadBitsPerSecond: new(trickle)},
		} {
			setRules(d, types.ProtocolTCP, port, rules)
			for name, bytes := range map[string]*atomic.Int64{"upload": &up, "download": &down} {
				await.Until(t, "a slow "+name, func() bool { // Once what was on its way has arrived.
					before := bytes.Load()
					time.Sleep(250 * time.Millisecond)
					return bytes.Load()-before < int64(trickle)/8
				})
			}
			setRules(d, types.ProtocolTCP, port, types.AllocationRules{})
			fast("without the rule " + what)
		}
	})
}

func TestTunnel_WhatWaitsForBandwidthEndsAtOnce(t *testing.T) {
	slowest := types.BitsPerSecond(8000)
	for what, end := range map[string]func(d *linktest.DataPlane, player *net.TCPConn){
		"the port closes":   func(d *linktest.DataPlane, _ *net.TCPConn) { d.Panel.Remove(1) },
		"the agent ends":    func(d *linktest.DataPlane, _ *net.TCPConn) { _ = d.Stop() },
		"the player leaves": func(_ *linktest.DataPlane, p *net.TCPConn) { _, _ = p.SetLinger(0), p.Close() },
	} {
		t.Run(what, func(t *testing.T) {
			eachStream(t, func(t *testing.T, o linktest.Options) {
				d := linktest.New(t, o)
				port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
					go fill(c)
					_, _ = io.Copy(io.Discard, c)
				}), nil)
				setRules(d, types.ProtocolTCP, port, types.AllocationRules{
					DownloadBitsPerSecond: &slowest, PlayerUploadBitsPerSecond: &slowest,
				})
				player := d.Join(port)
				var ends sync.WaitGroup
				defer ends.Wait()
				defer player.Close()
				sent := make(chan error, 1)
				ends.Go(func() {
					_, err := player.Write(make([]byte, 64<<20)) // It fills what the kernel holds.
					sent <- err
				})
				_, _ = io.ReadFull(player, make([]byte, 3000))
				start := time.Now()
				end(d, player)
				d.Server.AwaitStats(t, "no player", func(s relay.Stats) bool { return s.Players == 0 })
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it takes %v", took)
				}
				if err := <-sent; err == nil || errors.Is(err, syscall.ETIMEDOUT) {
					t.Errorf("the player's write ends with %v", err)
				}
			})
		})
	}
}
