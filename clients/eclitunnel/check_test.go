package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// checkAllocation says of each allocation with a name that its game is not running.
func (p *panel) checkAllocation(r *http.Request) answer {
	for _, a := range p.allocations {
		if strconv.FormatInt(a.ID, 10) != r.PathValue("id") {
			continue
		}
		name, version, players := hostile, "1.21.4", 3
		check := types.AllocationCheck{
			AllocationID: a.ID, Outcome: types.CheckReachable, Message: "Players can join.",
			Hops: []types.CheckHop{{Hop: types.HopGame, State: types.HopOk, Detail: "It answers."}},
			Game: &types.GameStatus{Kind: types.GameMinecraftJava, Name: &name, Version: &version, Players: &players, MaxPlayers: &players},
		}
		if a.Name != "" {
			check.Outcome, check.Message, check.Game = types.CheckGameNotRunning, "Start the game.", nil
			check.Hops[0] = types.CheckHop{Hop: types.HopGame, State: types.HopFailed, Detail: hostile}
		}
		return answer{200, check}
	}
	return refusal(404, types.CodeNotFound)
}

func TestCheck_SaysWhatIsBroken(t *testing.T) {
	p := newPanel(t)
	p.settle = types.AllocationListening
	m := enrolledAt(t, p)
	m.run("check").want(t, 0, "No ports are open")
	m.run("open", "tcp", "25565", "--public-port", "3001").want(t, 0)
	o := m.run("check", "3001")
	o.want(t, 0, "tcp play.test:3001: Players can join.", "ok      game", "minecraft_java", "version 1.21.4, 3 of 3 players")
	wantPlain(t, "the game's name", o.stdout+o.stderr)
	m.run("open", "udp", "2456", "--public-port", "4000", "--name", "valheim").want(t, 0)
	o = m.run("check")
	o.want(t, 12, "Players can join.", "udp play.test:4000: Start the game.", "FAILED  game", "players cannot join")
	wantPlain(t, "the game's name", o.stdout+o.stderr)
	o = m.run("check", "valheim", "--json")
	o.want(t, 12)
	var checks []types.AllocationCheck
	if err := json.Unmarshal([]byte(o.stdout), &checks); err != nil || len(checks) != 1 || checks[0].Outcome != types.CheckGameNotRunning {
		t.Errorf("printed %q: %v", o.stdout, err)
	}
	m.run("check", "9").want(t, 11, "no such port")
}
