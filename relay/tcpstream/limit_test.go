package tcpstream_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/shaping"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// joinLimited is join with limits.
func (p *pair) joinLimited(t testing.TB, upload, download *shaping.Shaper) (player, game *net.TCPConn, over <-chan error) {
	t.Helper()
	player, accepted := tcp(t)
	dialled, game := tcp(t)
	p.games <- dialled
	ended := make(chan error, 1)
	limited := &tcpstream.Player{Conn: accepted, Open: openMessage, Upload: upload.Join(), Download: download.Join()}
	go func() { ended <- p.server.Carry(limited) }()
	return player, game, ended
}

func limited(rates shaping.Rates) *shaping.Shaper {
	s := shaping.New()
	s.SetRates(rates)
	return s
}

// fill writes until the connection ends.
func fill(c net.Conn) {
	for data := make([]byte, 64<<10); ; {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

// count reads until the connection ends.
func count(c net.Conn, bytes *atomic.Int64) {
	for data := make([]byte, 16<<10); ; {
		n, err := c.Read(data)
		bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// TestLimit_HoldsForAllStreams passes the limit in chunks that are copied at the lower
// rate, and in plain text spliced at the higher one.
func TestLimit_HoldsForAllStreams(t *testing.T) {
	const least, most = 4_000_000, 40_000_000
	for name, c := range map[string]struct {
		streams int
		rate    int64
		pair    func(testing.TB) *pair
	}{
		"one, encrypted": {1, least, newPair},
		"one, copied":    {1, least, newPlainPair},
		"one, spliced":   {1, most, newPlainPair},
		"200":            {200, least, newPlainPair},
	} {
		t.Run(name, func(t *testing.T) {
			var up, down atomic.Int64
			start := time.Now()
			upload, download := limited(shaping.Rates{All: c.rate}), limited(shaping.Rates{All: c.rate})
			var ends sync.WaitGroup
			var connections []*net.TCPConn
			defer func() {
				for _, c := range connections {
					tcpstream.Reset(c)
				}
				ends.Wait()
			}()
			for range c.streams {
				player, game, over := c.pair(t).joinLimited(t, upload, download)
				connections = append(connections, player, game)
				//nolint:errcheck // how a stream ends is not what is measured
				ends.Go(func() { <-over })
				for _, end := range []struct {
					c     net.Conn
					bytes *atomic.Int64
				}{{player, &down}, {game, &up}} {
					ends.Go(func() { fill(end.c) })
					ends.Go(func() { count(end.c, end.bytes) })
				}
			}
			for what, bytes := range map[string]*atomic.Int64{"upload": &up, "download": &down} {
				// A busy machine may have to try again, and what it reads late comes at
				// once, but all in all it must never be too fast.
				slow := 0.0
				for try := 0; try < 10 && slow < 0.95; try++ {
					from, before := time.Now(), bytes.Load()
					time.Sleep(2 * time.Second)
					slow = float64(bytes.Load()-before) * 8 / time.Since(from).Seconds() / float64(c.rate)
				}
				fast := float64(bytes.Load()) * 8 / (time.Since(start).Seconds() + 0.1) / float64(c.rate)
				if slow < 0.95 || fast > 1.05 {
					t.Errorf("%s: at best %.3f of the rate, all in all %.3f", what, slow, fast)
				}
			}
		})
	}
}

func TestLimit_EndsWithItsStream(t *testing.T) {
	slow := shaping.Rates{All: 8000}
	for what, end := range map[string]func(p *pair, player *net.TCPConn){
		"the data connection": func(p *pair, _ *net.TCPConn) { p.server.Close() },
		"its peer":            func(p *pair, _ *net.TCPConn) { p.client.Close() },
		"the player":          func(_ *pair, player *net.TCPConn) { tcpstream.Reset(player) },
	} {
		t.Run(what, func(t *testing.T) {
			eachWay(t, func(t *testing.T, p *pair) {
				player, game, over := p.joinLimited(t, limited(slow), limited(slow))
				var ends sync.WaitGroup
				ends.Go(func() { fill(player) })
				ends.Go(func() { fill(game) })
				if _, err := io.ReadFull(player, make([]byte, 1500)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				end(p, player)
				err := await.Receive(t, over, "end of the stream")
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it takes %v", took)
				}
				if err != nil && !errors.Is(err, tcpstream.ErrBroken) {
					t.Errorf("it ends with %v", err)
				}
				ends.Wait()
			})
		})
	}
}

func TestLimit_PassesEveryByte(t *testing.T) {
	rates := shaping.Rates{All: 400_000_000, Player: 300_000_000}
	eachWay(t, func(t *testing.T, p *pair) {
		player, game, over := p.joinLimited(t, limited(rates), limited(rates))
		pass(t, game, player)
		pass(t, player, game)
		_ = player.CloseWrite()
		if err := ending(game); err != nil {
			t.Error(err)
		}
		_ = game.Close()
		if err := await.Receive(t, over, "end of the stream"); err != nil {
			t.Error(err)
		}
	})
}
