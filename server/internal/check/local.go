package check

import (
	"fmt"
	"net"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// local checks the link and the game, by what the agent has found out and otherwise by what it
// has reported before.
func (r *run) local() finding {
	t := r.target
	if t != nil && !t.Allowed {
		reason := valueOr(t.Reason, "its allow-list does not permit it")
		return r.fail(types.HopLink, types.CheckTargetNotAllowed, "The agent refuses the local target: "+reason,
			fmt.Sprintf("The agent does not connect players to %s: %s. Permit it with --allow on the agent's machine, or change the local target.", r.localTarget(), reason))
	}
	if r.row.ClientState == db.StateFailed {
		return r.fail(types.HopLink, types.CheckLinkDown, "The agent reports: "+r.row.ClientReason,
			fmt.Sprintf("The agent is not linked to the tunnel server: %s. See that the agent's machine may connect to the tunnel server, and that no firewall is between them.", r.row.ClientReason))
	}
	r.hop(types.HopLink, types.HopOk, "The agent is linked to the tunnel server.")
	if t == nil || t.TCP == nil || t.UDP == nil {
		return r.reported()
	}
	return r.probed(*t.TCP, *t.UDP, t.Waiting != nil && *t.Waiting)
}

// localTarget is the local target.
func (r *run) localTarget() string {
	return net.JoinHostPort(r.row.LocalHost, strconv.Itoa(r.row.LocalPort))
}

// reported judges the game by the agent's reports.
func (r *run) reported() finding {
	switch r.row.Target {
	case db.TargetDown:
		return r.notRunning(r.row.TargetReason, "The agent reports: "+r.row.TargetReason)
	case db.TargetUp:
		r.hop(types.HopGame, types.HopOk, "The agent reports that a program waits for players. It could not be asked for more; it may be of an older version.")
	default:
		r.hop(types.HopGame, types.HopUnknown, "The agent could not be asked about the game; it may be of an older version.")
	}
	return finding{}
}

func (r *run) notRunning(reason, detail string) finding {
	return r.fail(types.HopGame, types.CheckGameNotRunning, detail,
		fmt.Sprintf("No game takes players at %s over %s on the agent's machine (%s). Start the game, or change the local port.",
			r.localTarget(), upper(r.row.Protocol), reason))
}

// probed judges the game by the answers over both protocols. Waiting means that the agent
// knows that a program waits for players, though it may say nothing.
func (r *run) probed(tcp, udp types.ProbeReply, waiting bool) finding {
	own, other, otherName := tcp, udp, "UDP"
	if r.row.Protocol == string(types.ProtocolUDP) {
		own, other, otherName = udp, tcp, "TCP"
	}
	r.game = own.Game
	detail := fmt.Sprintf("TCP: %s. UDP: %s.", describe(tcp), describe(udp))
	if takes(own) || waiting && own.State == types.ProbeSilent {
		r.hop(types.HopGame, types.HopOk, detail)
		return finding{}
	}
	// A UDP port that says nothing may be one where no game waits, on another machine.
	elsewhere := takes(other) && (own.State == types.ProbeRefused || other.Game != nil)
	switch {
	case elsewhere:
		r.game = nil
		return r.fail(types.HopGame, types.CheckWrongProtocol, detail,
			fmt.Sprintf("The port is %s, but what runs at %s on the agent's machine takes players over %s%s. Open a port for %s instead.",
				upper(r.row.Protocol), r.localTarget(), otherName, named(other.Game), otherName))
	case own.State == types.ProbeRefused, own.State == types.ProbeUnreachable, r.row.Protocol == string(types.ProtocolTCP):
		return r.notRunning(describe(own), detail)
	default:
		r.hop(types.HopGame, types.HopUnknown, detail)
		return finding{}
	}
}

// takes reports whether something took a connection, or has answered.
func takes(r types.ProbeReply) bool {
	return r.State == types.ProbeAnswered || r.State == types.ProbeOpen || r.State == types.ProbeClosed
}

// describe says what came of a probe.
func describe(r types.ProbeReply) string {
	switch r.State {
	case types.ProbeAnswered:
		if r.Game == nil {
			return "something answers"
		}
		return gameNames[r.Game.Kind] + " answers"
	case types.ProbeOpen:
		return "a connection is accepted"
	case types.ProbeClosed:
		return "a connection is accepted and closed again"
	case types.ProbeRefused:
		return "refused"
	case types.ProbeSilent:
		return "no answer"
	default:
		return valueOr(r.Reason, "it could not be tried")
	}
}

var gameNames = map[types.GameStatusKind]string{
	types.GameMinecraftJava: "Minecraft (Java Edition)", types.GameMinecraftBedrock: "Minecraft (Bedrock Edition)",
	types.GameSource: "a game of the Source protocol", types.GameQuake3: "a game of the Quake protocol",
	types.GameLuanti: "Luanti", types.GameTeamspeak3: "TeamSpeak 3", types.GameMumble: "Mumble",
}

// named names a game in brackets, if it is known.
func named(g *types.GameStatus) string {
	if g == nil {
		return ""
	}
	return " (" + gameNames[g.Kind] + ")"
}

func upper(protocol string) string {
	if protocol == string(types.ProtocolUDP) {
		return "UDP"
	}
	return "TCP"
}

func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
