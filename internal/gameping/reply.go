package gameping

import "github.com/eclitunnel/eclitunnel/gen/types"

// Contract returns the reply as devices report it.
func (r Reply) Contract() types.ProbeReply {
	reply := types.ProbeReply{State: types.ProbeReplyState(r.State)}
	if r.Reason != "" {
		reason := clean(r.Reason)
		reply.Reason = &reason
	}
	if r.RoundTrip > 0 {
		ms := float32(r.RoundTrip.Microseconds()) / 1000
		reply.RoundTripMs = &ms
	}
	if r.Game != nil {
		status := r.Game.contract()
		status.RoundTripMs = reply.RoundTripMs
		reply.Game = &status
	}
	return reply
}

func (g Game) contract() types.GameStatus {
	status := types.GameStatus{Kind: types.GameStatusKind(g.Kind)}
	if g.Name != "" {
		status.Name = &g.Name
	}
	if g.Version != "" {
		status.Version = &g.Version
	}
	if g.Players >= 0 {
		status.Players = &g.Players
	}
	if g.MaxPlayers >= 0 {
		status.MaxPlayers = &g.MaxPlayers
	}
	return status
}

// Check makes a reply of a device one that may be shown: it reports whether it is valid, and
// bounds its texts as those of a [Game].
func Check(r *types.ProbeReply) bool {
	if r == nil {
		return true
	}
	if !r.State.Valid() || r.RoundTripMs != nil && !(*r.RoundTripMs >= 0 && *r.RoundTripMs < 1e9) {
		return false
	}
	if r.Reason != nil {
		*r.Reason = clean(*r.Reason)
	}
	g := r.Game
	if g == nil {
		return true
	}
	if !g.Kind.Valid() || g.RoundTripMs != nil && !(*g.RoundTripMs >= 0 && *g.RoundTripMs < 1e9) {
		return false
	}
	for _, text := range []*string{g.Name, g.Version} {
		if text != nil {
			*text = clean(*text)
		}
	}
	for _, n := range []*int{g.Players, g.MaxPlayers} {
		if n != nil && count(*n) < 0 {
			return false
		}
	}
	return true
}
