package face_test

import (
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

var now = time.Date(2026, 12, 1, 20, 15, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func port(id int64, name string, protocol types.Protocol, public, local string) agent.PortView {
	return agent.PortView{
		EventPort: agent.EventPort{ID: id, Name: name, Protocol: protocol, PublicAddress: "play.example.com:" + public,
			LocalAddress: "127.0.0.1:" + local, PublicAddresses: []string{"203.0.113.7"}},
		State: agent.PortOpen, Target: types.TargetUp,
	}
}

// evening is an agent with a port in each state.
func evening() agent.Snapshot {
	survival := port(1, "survival", types.ProtocolTCP, "25565", "25565")
	survival.Players, survival.ToPlayers, survival.FromPlayers = 3, 81e6, 9e6
	survival.ToPlayersPerSecond, survival.FromPlayersPerSecond = 212_400, 8_310
	bedrock := port(2, "bedrock", types.ProtocolUDP, "19132", "19132")
	bedrock.ToPlayers = 1_200_000
	valheim := port(3, "valheim", types.ProtocolUDP, "24510", "2456")
	valheim.State, valheim.Target, valheim.TargetReason = agent.PortNoGame, types.TargetDown, "nothing listens on 127.0.0.1:2456: start the game"
	lan := port(4, "old box", types.ProtocolTCP, "24600", "25566")
	lan.LocalAddress, lan.State = "192.168.1.9:25566", agent.PortFailed
	lan.Reason = "192.168.1.9:25566 is not on this agent's allow-list; start it with --allow 192.168.1.9:25566"
	creative := port(5, "", types.ProtocolTCP, "24601", "25570")
	creative.State = agent.PortPaused
	return agent.Snapshot{
		Time: now, Version: "1.4.0", Started: ago(26 * time.Hour),
		Device: agent.DeviceView{ID: uuid.UUID{1}, Name: "home-server"},
		Panel:  agent.PanelView{URL: "https://panel.example.com", Connected: true, Since: ago(124 * time.Minute)},
		Servers: []agent.LinkView{{
			Address: "fra1.example.com:7443", State: agent.LinkUp, RoundTripMs: 23.4, UplinkLimit: 1_150_000,
		}},
		Tunnels: []agent.PortView{survival, bedrock, valheim, lan, creative},
		Notes: []agent.Note{
			{Time: ago(130 * time.Minute), Text: "linked to the tunnel server fra1.example.com:7443"},
			{Time: ago(10 * time.Minute), Text: "survival: 2 players joined (2 now)"},
			{Time: ago(4 * time.Minute), Text: "valheim: the game does not answer: nothing listens on 127.0.0.1:2456: start the game", Trouble: true},
			{Time: ago(3 * time.Second), Text: "survival: 1 player joined (3 now)"},
		},
	}
}
