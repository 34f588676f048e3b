package link_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestCarried_CountsTheBytesAndPlayersOfEachPort(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	udp := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	closed := d.Publish(types.ProtocolTCP, 1, nil)
	player := d.Greet(port)
	linktest.Write(t, player, "four")
	linktest.Expect(t, player, "four")
	talker := linktest.DialUDP(t, "127.0.0.1", udp)
	linktest.Ask(t, talker, []byte("who are you?"))
	linktest.Ask(t, talker, []byte("hi"))
	_ = d.Join(closed)
	want := map[int64]target.Carried{
		1: {},
		2: {FromPlayers: 5, ToPlayers: 5, Players: 1, Joined: 1},
		3: {FromPlayers: 14, ToPlayers: 14, Players: 1, Joined: 1},
		4: {Refused: 1},
	}
	await.Until(t, "the players to be counted", func() bool {
		got := d.Links.Carried()
		for id, want := range want {
			if got[id] != want {
				t.Logf("allocation %d: %+v, want %+v", id, got[id], want)
				return false
			}
		}
		return len(got) == len(want)
	})
	_ = player.Close()
	await.Until(t, "the player to leave", func() bool { return d.Links.Carried()[2].Players == 0 })
	d.Mu.Lock()
	d.Allocations = nil
	d.Mu.Unlock()
	d.Apply()
	await.Until(t, "the port to be forgotten, but not its bytes", func() bool {
		d.Apply()
		return len(d.Links.Carried()) == 0 && d.Links.Stats().TCP == struct{ FromPlayers, ToPlayers uint64 }{5, 5}
	})
}
