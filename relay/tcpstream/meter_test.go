package tcpstream_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/shaping"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// In plain text bulk is spliced, and within a limit that is low it is not.
func TestMeter_CountsEveryByteWhileTheStreamLasts(t *testing.T) {
	for name, rate := range map[string]int64{"unlimited": 0, "limited": 400_000_000} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, p *pair) {
				var allocation meter.Allocation
				player, accepted := tcp(t)
				dialled, game := tcp(t)
				p.games <- dialled
				counted := &tcpstream.Player{Conn: accepted, Open: openMessage, Meter: allocation.New()}
				if rate > 0 {
					shaper := limited(shaping.Rates{All: rate})
					counted.Upload, counted.Download = shaper.Join(), shaper.Join()
				}
				over := make(chan error, 1)
				go func() { over <- p.server.Carry(counted) }()

				send(t, player, "hello")
				expect(t, game, "hello")
				pass(t, game, player)
				pass(t, player, game)
				want := meter.Traffic{DownloadBytes: bulk, UploadBytes: bulk + 5}
				await.Until(t, "the player to be counted", func() bool { return counted.Meter.Traffic() == want })
				if got := allocation.Traffic(); got != want {
					t.Errorf("the allocation has carried %+v", got)
				}
				if allocation.Players() != 1 {
					t.Errorf("%d players", allocation.Players())
				}

				_ = player.CloseWrite()
				_ = ending(game)
				send(t, game, "bye")
				_ = game.Close()
				expect(t, player, "bye")
				if err := await.Receive(t, over, "end of the stream"); err != nil {
					t.Error(err)
				}
				counted.Meter.Leave()
				want.DownloadBytes += 3
				if usage := allocation.Take(); usage != (meter.Usage{Traffic: want, Joins: 1, PeakPlayers: 1}) || allocation.Open() {
					t.Errorf("used %+v, open %v", usage, allocation.Open())
				}
				if usage := allocation.Take(); usage != (meter.Usage{}) {
					t.Errorf("used %+v after that", usage)
				}
			})
		})
	}
}

// A write to the player that breaks has passed a part of its bytes, which the player has.
func TestMeter_CountsWhatABrokenWriteHasPassed(t *testing.T) {
	eachWay(t, func(t *testing.T, p *pair) {
		var allocation meter.Allocation
		player, accepted := tcp(t)
		dialled, game := tcp(t)
		p.games <- dialled
		// Both hold little, so that no chunk fits.
		if err := errors.Join(accepted.SetWriteBuffer(1), player.SetReadBuffer(1)); err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() {
			over <- p.server.Carry(&tcpstream.Player{Conn: accepted, Open: openMessage, Meter: allocation.New()})
		}()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = game.Write(pattern(bulk))
		}()
		received := make([]byte, 100_000)
		_ = player.SetReadDeadline(time.Now().Add(await.Timeout))
		if _, err := io.ReadFull(player, received); err != nil {
			t.Fatal(err)
		}
		if err := accepted.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.Copy(io.Discard, player) // Until it is reset.
		_ = await.Receive(t, over, "end of the stream")
		_ = game.Close()
		<-sent
		if got := allocation.Traffic().DownloadBytes; got < uint64(len(received))+uint64(rest) {
			t.Errorf("counted %d bytes, and the player has received %d", got, int64(len(received))+rest)
		}
	})
}
