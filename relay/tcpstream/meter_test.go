package tcpstream_test

import (
	"testing"

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
				usage, open := allocation.Take()
				want.DownloadBytes += 3
				if usage != (meter.Usage{Traffic: want, Joins: 1, PeakPlayers: 1}) || open {
					t.Errorf("used %+v, open %v", usage, open)
				}
				if usage, _ = allocation.Take(); usage != (meter.Usage{}) {
					t.Errorf("used %+v after that", usage)
				}
			})
		})
	}
}
