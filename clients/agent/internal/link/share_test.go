package link_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

func TestLink_AnAgentThatIsFullRefusesPlayersAtOnce(t *testing.T) {
	var log logged
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
		o.Limits.Streams, o.Logger = 8, log.logger()
		o.Targets = target.NewDialer(target.Options{Allow: linktest.AllowLoopback})
	}})
	game := linktest.Game(t, "127.0.0.1", linktest.Echo)
	crowded, other := d.Publish(types.ProtocolTCP, game, nil), d.Publish(types.ProtocolTCP, game, nil)
	for range 4 { // Half.
		d.Greet(crowded)
	}
	if linktest.Refusal(t, crowded) == nil {
		t.Error("the player sees a game that hangs up")
	}
	for range 2 { // Half of the rest.
		d.Greet(other)
	}
	if linktest.Refusal(t, other) == nil {
		t.Error("the player sees a game that hangs up")
	}
	d.Server.AwaitStats(t, "refusals at once", func(s relay.Stats) bool {
		return s.PlayersRefused[publicport.RefusedLimit] == 2 && s.PlayersRefused[publicport.RefusedNoDataConnection] == 0
	})
	await.Until(t, "one line in the agent's log", func() bool {
		return log.Count("as the system lets this program have files") == 1
	})
}
