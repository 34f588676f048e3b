package publicport

import "slices"

// Refusal is why a player is not served, or why a datagram of one is dropped. It is a
// label of metrics, and what the panel is told.
type Refusal string

// Why a player or a datagram is refused; the zero value means that it is not.
const (
	NotRefused              Refusal = ""
	RefusedDenied           Refusal = "denied"             // The allocation's address lists do not permit the player.
	RefusedKeptOut          Refusal = "kept_out"           // The player's source is kept out for a time.
	RefusedLimit            Refusal = "limit"              // The allocation, or its tunnel client, has as many players as it may.
	RefusedSourceLimit      Refusal = "source_limit"       // The player's source has as many as it may.
	RefusedSourceRate       Refusal = "source_rate"        // More come from the player's source, per second, than may.
	RefusedGaveWay          Refusal = "gave_way"           // The player was in, and had to leave for one from a source with fewer.
	RefusedFlowLimit        Refusal = "flow_limit"         // The allocation, or the sender, has as many flows as it may, or opens too many per second.
	RefusedFiles            Refusal = "files"              // The allocation has its share of the process's files.
	RefusedNoLink           Refusal = "no_link"            // The allocation's tunnel client is not linked.
	RefusedWaiting          Refusal = "waiting_limit"      // Too many players wait for that tunnel client.
	RefusedNoDataConnection Refusal = "no_data_connection" // It opened no data connection in time.
	RefusedLoop             Refusal = "loop"               // It comes from a tunnel client, as Limits.Unanswered others do.
	RefusedDraining         Refusal = "draining"           // The port takes no new players.
	RefusedTooLong          Refusal = "too_long"           // The datagram is longer than a data connection carries.
	RefusedRate             Refusal = "rate"               // The player, or their network, sends more per second than it may.
	RefusedUnproven         Refusal = "unproven"           // The answer is more than goes to players whose flows are not proven.
	RefusedBandwidth        Refusal = "bandwidth"          // The allocation, or the player, has taken the bandwidth that it may.
	RefusedUnsendable       Refusal = "unsendable"         // The system would not send the datagram to the player.
)

// playerRefusals are the reasons why TCP players are refused, and datagramRefusals those
// why datagrams are dropped.
var (
	playerRefusals = []Refusal{
		RefusedDenied, RefusedKeptOut, RefusedLimit, RefusedSourceLimit, RefusedSourceRate, RefusedGaveWay,
		RefusedFiles, RefusedNoLink, RefusedWaiting, RefusedNoDataConnection, RefusedLoop,
	}
	datagramRefusals = []Refusal{
		RefusedDenied, RefusedKeptOut, RefusedLimit, RefusedRate, RefusedTooLong, RefusedNoLink, RefusedFlowLimit, RefusedUnproven,
		RefusedBandwidth, RefusedUnsendable, RefusedDraining, RefusedLoop,
	}
)

// Refusals returns every reason, sorted.
func Refusals() []Refusal {
	all := slices.Concat(playerRefusals, datagramRefusals)
	slices.Sort(all)
	return slices.Compact(all)
}

// Valid reports whether r is a reason.
func (r Refusal) Valid() bool {
	return slices.Contains(playerRefusals, r) || slices.Contains(datagramRefusals, r)
}

// ofState reports whether the state of the allocation is the reason, and not what players
// do: an agent that is offline is no attack, however many players wait for it.
func (r Refusal) ofState() bool { return r == RefusedNoLink || r == RefusedDraining }
