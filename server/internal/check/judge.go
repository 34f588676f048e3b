package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func (r *run) publicAddress() string {
	return fmt.Sprintf("%s port %d", r.row.PublicHost, r.row.Port)
}

// judgeReached judges a public port that has accepted the attempt.
func (r *run) judgeReached(best types.ProbeReply, s seen, detail string) finding {
	if s.known && !s.any {
		return r.pointsElsewhere(detail)
	}
	r.hop(types.HopPublicPort, types.HopOk, detail)
	if best.Game != nil {
		r.game = best.Game
		return finding{types.CheckReachable, fmt.Sprintf("Players can join: %s answers at %s.", gameNames[best.Game.Kind], r.publicAddress())}
	}
	return finding{types.CheckOpen, fmt.Sprintf("Players get through to what runs at %s, but no game that this check knows answers there. If they cannot join, look at the game itself: its version, its password or its list of players.", r.localTarget())}
}

func (r *run) pointsElsewhere(detail string) finding {
	return r.fail(types.HopPublicPort, types.CheckNamePointsElsewhere, detail+" Nothing has arrived at the tunnel server.",
		fmt.Sprintf("%s leads to another machine than the tunnel server. Its operator has to correct the DNS record, or the public host.", r.row.PublicHost))
}

// Reasons of the tunnel server that are about the link, and not about who may enter.
var linkReasons = []string{"no_link", "no_data_connection", "waiting_limit"}

// refused judges what the tunnel server has refused since the check began.
func (r *run) refused(s seen, detail string) finding {
	rules := slices.DeleteFunc(slices.Clone(s.refused), func(why string) bool { return slices.Contains(linkReasons, why) })
	switch {
	case len(s.refused) == 0:
		return finding{}
	case len(rules) == 0:
		r.hop(types.HopPublicPort, types.HopOk, detail)
		return r.fail(types.HopLink, types.CheckLinkDown, "The tunnel server reports: "+strings.Join(s.refused, ", ")+".",
			"The tunnel server does not get through to the agent, which may have lost its link. See that the agent's machine is connected, and check again.")
	default:
		why := strings.Join(rules, ", ")
		return r.fail(types.HopPublicPort, types.CheckRefusedByRules, detail+" The tunnel server reports: "+why+".",
			fmt.Sprintf("The rules of the port kept the check out (%s). Players at other addresses may get in: look at the lists of addresses, the limits, and who is kept out.", why))
	}
}

// elsewhere tries the address from which the tunnel server is connected, if the public host
// does not have it: if the port is reached there, the public host leads to another machine.
func (r *run) elsewhere(ctx context.Context, by prober, tried []netip.Addr, detail string) (finding, error) {
	own, err := netip.ParseAddr(valueOr(r.row.ServerAddress, ""))
	if err != nil || slices.Contains(tried, own.Unmap()) {
		return finding{}, nil
	}
	replies, err := r.try(ctx, by, []netip.Addr{own.Unmap()})
	if err != nil || replies == nil {
		return finding{}, err
	}
	arrived := reached(replies[0]) || replies[0].State == types.ProbeClosed
	if !arrived {
		s, err := r.arrivals(ctx)
		if err != nil {
			return finding{}, err
		}
		arrived = s.any
	}
	if !arrived {
		return finding{}, nil
	}
	return r.pointsElsewhere(detail), nil
}

// judgeSilence judges a public port at which the attempt has failed.
func (r *run) judgeSilence(best types.ProbeReply, s seen, detail string) finding {
	answers := r.target != nil && r.game != nil
	tcp := r.row.Protocol == string(types.ProtocolTCP)
	closed := best.State == types.ProbeClosed
	switch {
	case closed && s.known && !s.any:
		return r.pointsElsewhere(detail)
	case best.State == types.ProbeUnreachable:
		return r.unsure(types.HopPublicPort, detail,
			"The public port could not be tried from where the check was made. Let somebody outside try to join.")
	case (closed || s.any) && answers:
		return r.fail(types.HopPublicPort, types.CheckNotAnswering, detail,
			fmt.Sprintf("The game answers the agent at %s, but not through %s. Look at its log: it may refuse players by their address, or expect another setting of the PROXY protocol.", r.localTarget(), r.publicAddress()))
	case closed || s.any:
		r.hop(types.HopPublicPort, types.HopOk, detail)
		return finding{types.CheckOpen, fmt.Sprintf("Players get through to what runs at %s, but it does not answer the check. If they cannot join, look at the game itself.", r.localTarget())}
	case s.known, tcp:
		return r.fail(types.HopPublicPort, types.CheckFirewall, detail+r.nothingArrived(s),
			fmt.Sprintf("The tunnel server has opened %s port %d, but it cannot be reached from outside: a firewall is in front of it. Its operator has to open the port there, in the machine's firewall and in that of the hosting provider.", upper(r.row.Protocol), r.row.Port))
	case answers:
		return r.fail(types.HopPublicPort, types.CheckNotAnswering, detail,
			fmt.Sprintf("The game answers the agent at %s, but not through %s. A firewall in front of the tunnel server may be the cause; a tunnel server of this version would tell.", r.localTarget(), r.publicAddress()))
	default:
		return r.unsure(types.HopPublicPort, detail,
			"Nothing answers through the public port, and the tunnel server could not be asked whether anything arrives there; it may be of an older version.")
	}
}

func (r *run) nothingArrived(s seen) string {
	if !s.known {
		return ""
	}
	return " Nothing has arrived at the tunnel server."
}
