package publicport

import (
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

const (
	// openings bounds the flows of a port that open in a second, and at once, while half
	// of Limits.Flows are open: each is work for the agent and a packet on a home's line,
	// which a flood must not fill. One source may have openingsPerSource, and the last
	// openingsReserve are for sources with few flows.
	openings          = 768
	openingsReserve   = 256
	openingsPerSource = 128
	// openingsAgain are for sources with few flows that come again after they were
	// refused, as players do, and addresses that somebody makes up in general do not.
	openingsAgain = 256
	// fewFlows is how many flows a household may have as if it had none.
	fewFlows = 8

	// evictionScanLimit is how many proven flows of the busiest source are examined for
	// the idlest.
	evictionScanLimit = 16

	// unprovenIdle and provenIdle are the silence that ends flows of a full port, if
	// their own is not shorter.
	unprovenIdle = 3 * time.Second
	provenIdle   = 30 * time.Second
)

// flowAdmission is the admission of a UDP port. It decides which flows may open, which
// gives way to a newcomer, and which are those of players. It is guarded by the lock of
// its port.
//
// A flow is proven once its player has spoken after an answer of the game: no more can be
// asked without knowing the game. It tells players from floods that are not listened for,
// but not from somebody who keeps sending from the same forged address.
type flowAdmission struct {
	admission
	draining bool // No new players.

	unproven, proven sources.Set[*udptunnel.ServerFlow]

	datagrams *sources.Rates // nil: of any number.

	opening          *rate.Limiter
	openingPerSource *sources.Rates
	openingAgain     *rate.Limiter
	refused          recentlyRefused
}

func newFlowAdmission(l Limits, r *rules) flowAdmission {
	a := flowAdmission{
		admission:        admission{limits: l},
		opening:          rate.NewLimiter(openings, openings),
		openingPerSource: sources.NewRates(openingsPerSource, openingsPerSource),
		openingAgain:     rate.NewLimiter(openingsAgain, openingsAgain),
	}
	a.setRules(r)
	return a
}

// setRules makes rules those of the port. Flows that are open stay, those of players who
// are denied apart: their port ends them.
func (a *flowAdmission) setRules(r *rules) {
	a.rules = r
	switch limit := r.DatagramsPerSecondPerSource; {
	case limit == nil:
		a.datagrams = nil
	case a.datagrams == nil:
		a.datagrams = sources.NewRates(float64(*limit), *limit)
	default:
		a.datagrams.Set(float64(*limit), *limit)
	}
}

// datagram reports whether a player's datagram may pass, whatever flow it is of.
func (a *flowAdmission) datagram(player netip.Addr, now time.Time) Refusal {
	if a.datagrams != nil && !a.datagrams.Allow(player, now) {
		return RefusedRate
	}
	return NotRefused
}

// newcomer reports whether a player who has no flow may have one at all.
func (a *flowAdmission) newcomer(player netip.Addr) Refusal {
	if a.draining {
		return RefusedDraining
	}
	if !a.permits(player) {
		return RefusedDenied
	}
	return NotRefused
}

// flow decides whether a flow may open. If another one has to give way to it, that is
// evicted: the caller must end it.
func (a *flowAdmission) flow(player netip.Addr, now time.Time) (evicted *udptunnel.ServerFlow, why Refusal) {
	limit := a.limits.FlowsPerSource
	if own := a.rules.MaxFlowsPerSource; own != nil {
		limit = min(limit, *own)
	}
	if !sources.Within(player, limit, &a.unproven, &a.proven) {
		return nil, RefusedFlowLimit
	}
	if !a.mayOpen(player, now) {
		return nil, RefusedFlowLimit
	}
	if a.len() < a.limits.Flows {
		return nil, NotRefused
	}
	if evicted = a.evictable(player); evicted == nil {
		return nil, RefusedFlowLimit
	}
	return evicted, NotRefused
}

func (a *flowAdmission) len() int { return a.unproven.Len() + a.proven.Len() }

// weight is how many flows the source of an address has, or its /48.
func (a *flowAdmission) weight(player netip.Addr) int {
	return a.unproven.Weight(player) + a.proven.Weight(player)
}

// mayOpen reports whether one more flow may open now, and counts it.
func (a *flowAdmission) mayOpen(player netip.Addr, now time.Time) bool {
	if a.len() < a.limits.Flows/2 {
		return true
	}
	reserve := 0.0
	few := a.weight(player) < fewFlows
	if !few {
		reserve = openingsReserve
	}
	switch {
	case a.opening.TokensAt(now) >= 1+reserve:
		return a.openingPerSource.Allow(player, now) && a.opening.AllowN(now, 1)
	case few && a.refused.before(player):
		return a.openingAgain.AllowN(now, 1)
	}
	return false
}

// evictable returns the flow that gives way to a newcomer: the oldest unproven one of
// the source with most of them, or else a proven one. nil: no source has more than the
// newcomer's.
func (a *flowAdmission) evictable(newcomer netip.Addr) *udptunnel.ServerFlow {
	weight := a.weight(newcomer)
	unproven := weight
	if weight < fewFlows {
		unproven = a.unproven.Weight(newcomer)
	}
	if a.unproven.Most() >= unproven {
		for f := range a.unproven.Busiest() {
			return f
		}
	}
	return a.idlest(weight, a.limits.Flows)
}

// idlest returns a proven flow of the source with most of them, which has been silent
// for long compared to others, for a newcomer whose source has so many of a limit. nil:
// it has hardly more, or no more than a household may.
func (a *flowAdmission) idlest(newcomer, limit int) *udptunnel.ServerFlow {
	if a.proven.Most() <= max(newcomer+1, min(fewFlows, limit/8)) {
		return nil
	}
	var idlest *udptunnel.ServerFlow
	now, left := udptunnel.Ticks(time.Now()), evictionScanLimit
	for f := range a.proven.Busiest() {
		a.proven.Renew(f) // Others are examined the next time.
		if idlest == nil || f.Silence(now) > idlest.Silence(now) {
			idlest = f
		}
		if left--; left == 0 {
			break
		}
	}
	return idlest
}

// opened counts a flow that has opened.
func (a *flowAdmission) opened(f *udptunnel.ServerFlow) { a.unproven.Add(f, f.Source.Addr()) }

// left counts a flow that has ended.
func (a *flowAdmission) left(f *udptunnel.ServerFlow) {
	if !a.proven.Remove(f) {
		a.unproven.Remove(f)
	}
}

// prove makes a flow that of a player, if there may be one more. If another one has to
// give way to it, that is evicted: the caller must end it.
func (a *flowAdmission) prove(f *udptunnel.ServerFlow) (evicted *udptunnel.ServerFlow, why Refusal) {
	from := f.Source.Addr()
	if limit := a.rules.MaxPlayers; limit != nil && a.proven.Len() >= *limit {
		if evicted = a.idlest(a.proven.Weight(from), *limit); evicted == nil {
			return nil, RefusedLimit
		}
	}
	a.unproven.Remove(f)
	a.proven.Add(f, from)
	f.Prove()
	return evicted, NotRefused
}

// fullness is how full the port is: 1 is full.
func (a *flowAdmission) fullness() float64 {
	full := float64(a.len()) / float64(a.limits.Flows)
	if limit := a.rules.MaxPlayers; limit != nil {
		full = max(full, float64(a.proven.Len())/float64(*limit))
	}
	return min(full, 1)
}

// silentTooLong reports whether a flow is to end at a time in Ticks, on a port of a
// fullness.
func silentTooLong(f *udptunnel.ServerFlow, now int64, fullness float64) bool {
	least, from := provenIdle, 0.75
	if !f.Proven() {
		least, from = unprovenIdle, 0.5
	}
	allowed := f.Idle
	if allowed > least && fullness > from {
		allowed -= time.Duration(float64(allowed-least) * (fullness - from) / (1 - from))
	}
	return f.Silence(now) > allowed
}

// recentlyRefused remembers which sources were refused lately, so that a flood from
// 65,536 others has them forgotten. The zero value is empty.
type recentlyRefused struct {
	seed maphash.Seed
	tags []uint32 // nil until the first is refused.
}

// before reports whether a source was refused before, and notes that it is.
func (r *recentlyRefused) before(player netip.Addr) bool {
	if r.tags == nil {
		r.seed, r.tags = maphash.MakeSeed(), make([]uint32, 1<<16)
	}
	hash := maphash.Comparable(r.seed, sources.Of(player))
	place, tag := &r.tags[hash>>48], uint32(hash)
	known := *place == tag
	*place = tag
	return known
}
