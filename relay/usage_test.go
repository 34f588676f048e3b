package relay_test

import (
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

func TestServer_CountsDatagramsAndThePlayersWhoAreProven(t *testing.T) {
	g := startUDPGame(t, relay.PortLimits{}, echo)
	player := g.join("127.0.2.1") // "join" and "play".
	g.ask(g.player("127.0.2.2"), "query")
	got := g.server.TakeUsage()[2]
	if want := (meter.Usage{
		Traffic: meter.Traffic{DownloadBytes: 13, UploadBytes: 13, DownloadDatagrams: 3, UploadDatagrams: 3},
		Joins:   1, PeakPlayers: 1, Players: 1,
	}); got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	// Those of an allocation that is removed are counted too.
	g.ask(player, "more")
	g.panel.Remove(2)
	g.server.AwaitStats(t, "the end of the flows", func(s relay.Stats) bool { return s.Flows == 0 })
	if got = g.server.TakeUsage()[2]; got.UploadBytes != 4 || got.DownloadBytes != 4 || got.Players != 0 || got.PeakPlayers != 1 {
		t.Errorf("used %+v at the end", got)
	}
	g.server.TakeUsage()
	if usage := g.server.TakeUsage(); !slices.Equal(keys(usage), []int64{1}) {
		t.Errorf("the usage of %v is counted", keys(usage))
	}
}

func keys[V any](m map[int64]V) (ids []int64) {
	for id := range m {
		ids = append(ids, id)
	}
	return ids
}
