package publicport

import (
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

const (
	// openings bounds the flows of a port that open in a second, and at once, while 3/4
	// of those that it may have are open: each is work for the agent and a packet on a
	// home's line, which a flood must not fill. Where the agent can have few, it is one in
	// openingsShare of those that the port may have without other ports' flows, but at least
	// minOpenings: a flow must live for long enough to be proven.
	openings      = 768
	minOpenings   = 64
	openingsShare = 4
	// openingsReserve is the part of openings that is for sources with few flows, and
	// openingsPerSource the one that a source may have.
	openingsReserve   = 3
	openingsPerSource = 6
	// openingsAgain is how many more, as a part of openings, are for sources with few flows
	// that come again after they were refused, as players do, and addresses that somebody
	// makes up in general do not.
	openingsAgain = 3

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

	allocation int64
	client     uuid.UUID
	carried    *carried // Flows.
	capacity   int      // How many of them the tunnel client can have open; 0: any number.

	flows sources.Table[*udptunnel.ServerFlow]

	datagrams *sources.Rates // nil: of any number.

	perSecond        int // Flows that may open: see openings.
	opening          *rate.Limiter
	openingPerSource *sources.Rates
	openingAgain     *rate.Limiter
	refused          recentlyRefused
}

func newFlowAdmission(l Limits, allocation types.ServerAllocation, flows *carried, r *rules, now func() time.Time) flowAdmission {
	a := flowAdmission{
		admission:  admission{limits: l, now: now},
		allocation: allocation.ID, client: allocation.ClientID, carried: flows,
	}
	a.setRules(r)
	a.setOpenings()
	return a
}

// setCapacity sets how many flows the tunnel client can have open; 0: any number. Flows
// that are open stay.
func (a *flowAdmission) setCapacity(flows int) {
	if flows != a.capacity {
		a.capacity = flows
		a.setOpenings()
	}
}

// setOpenings sets how many flows may open in a second.
func (a *flowAdmission) setOpenings() {
	n := openings
	if a.capacity > 0 {
		n = min(max(minOpenings, share(a.capacity, 0)/openingsShare), openings)
	}
	a.perSecond = n
	a.opening = rate.NewLimiter(rate.Limit(n), n)
	a.openingAgain = rate.NewLimiter(rate.Limit(n/openingsAgain), n/openingsAgain)
	a.openingPerSource = sources.NewRates(float64(n/openingsPerSource), n/openingsPerSource)
}

// limit is how many flows may be open: no more than the share of the allocation in what
// the tunnel client can have open.
func (a *flowAdmission) limit() int {
	if a.capacity == 0 {
		return a.limits.Flows
	}
	return min(a.limits.Flows, a.carried.share(a.client, a.allocation, a.capacity))
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
	return a.permits(player)
}

// flow decides whether a flow may open. If another one has to give way to it, that is
// evicted: the caller must end it.
func (a *flowAdmission) flow(player netip.Addr, now time.Time) (evicted *udptunnel.ServerFlow, why Refusal) {
	limit := a.limits.FlowsPerSource
	if own := a.rules.MaxFlowsPerSource; own != nil {
		limit = min(limit, *own)
	}
	if !a.flows.Within(player, limit) {
		return nil, RefusedFlowLimit
	}
	most := a.limit()
	if !a.mayOpen(player, most, now) {
		return nil, RefusedFlowLimit
	}
	if a.flows.Len() < most {
		return nil, NotRefused
	}
	evicted, ok := a.flows.Evictable(player, most, silenceAt(now))
	if !ok {
		return nil, RefusedFlowLimit
	}
	return evicted, NotRefused
}

// silenceAt returns how long a flow has been silent at a time.
func silenceAt(now time.Time) func(*udptunnel.ServerFlow) time.Duration {
	ticks := udptunnel.Ticks(now)
	return func(f *udptunnel.ServerFlow) time.Duration { return f.Silence(ticks) }
}

// mayOpen reports whether one more flow may open now, of most that may be open, and
// counts it.
func (a *flowAdmission) mayOpen(player netip.Addr, most int, now time.Time) bool {
	if a.flows.Len() < most/4*3 {
		return true
	}
	reserve := 0.0
	few := a.flows.Weight(player) < sources.Few
	if !few {
		reserve = float64(a.perSecond / openingsReserve)
	}
	switch {
	case a.opening.TokensAt(now) >= 1+reserve:
		return a.openingPerSource.Allow(player, now) && a.opening.AllowN(now, 1)
	case few && a.refused.before(player):
		return a.openingAgain.AllowN(now, 1)
	}
	return false
}

// opened counts a flow that has opened.
func (a *flowAdmission) opened(f *udptunnel.ServerFlow) {
	a.flows.Add(f, f.Source.Addr())
	a.carried.add(a.client, a.allocation)
}

// left counts a flow that has ended.
func (a *flowAdmission) left(f *udptunnel.ServerFlow) {
	if a.flows.Remove(f) {
		a.carried.give(a.client, a.allocation)
	}
}

// prove makes a flow that of a player, if there may be one more. If another one has to
// give way to it, that is evicted: the caller must end it.
func (a *flowAdmission) prove(f *udptunnel.ServerFlow) (evicted *udptunnel.ServerFlow, why Refusal) {
	from := f.Source.Addr()
	if limit := a.rules.MaxPlayers; limit != nil && a.flows.Proven() >= *limit {
		var ok bool
		if evicted, ok = a.flows.EvictableProven(from, *limit, silenceAt(time.Now())); !ok {
			return nil, RefusedLimit
		}
	}
	a.flows.Prove(f, from)
	f.Prove()
	return evicted, NotRefused
}

// fullness is how full the port is: 1 is full.
func (a *flowAdmission) fullness() float64 {
	full := float64(a.flows.Len()) / float64(a.limit())
	if limit := a.rules.MaxPlayers; limit != nil {
		full = max(full, float64(a.flows.Proven())/float64(*limit))
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
