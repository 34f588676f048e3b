package publicport

import (
	"cmp"
	"iter"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// refusedInterval is the least time between two log lines about what an allocation's
	// port refuses, and how often the busiest ports are chosen.
	refusedInterval = time.Minute
	// refusedThreshold is how many refusals in that time are worth a line. It is more than
	// players who try again and again cause by themselves.
	refusedThreshold = 50
	// maxBusiest bounds Stats.Busiest.
	maxBusiest = 20
)

// Refused are counts of what one port has refused, by reason; a reason that is absent has
// not occurred.
type Refused struct{ Players, Datagrams map[Refusal]uint64 }

// since returns what has been refused after before.
func (r Refused) since(before Refused) Refused {
	return Refused{Players: increase(r.Players, before.Players), Datagrams: increase(r.Datagrams, before.Datagrams)}
}

func increase(now, before map[Refusal]uint64) map[Refusal]uint64 {
	left := make(map[Refusal]uint64, len(now))
	for why, n := range now {
		if n > before[why] {
			left[why] = n - before[why]
		}
	}
	return left
}

// portRefusals counts the refusals of one allocation's port, for it and for all ports. It
// outlives the port where that is closed for a while.
type portRefusals struct {
	own, all refusals
	sums     *refusalSums
}

// refusalSums are sums of a port's refusals, which are cheap to look at. They are added to
// after the counts: who sees a sum sees the counts.
type refusalSums struct {
	state   atomic.Uint64 // For a reason of the allocation's state,
	traffic atomic.Uint64 // and for any other.
}

func (p *Ports) newRefusals() portRefusals {
	return portRefusals{own: newRefusals(), all: p.counters.refusals, sums: new(refusalSums)}
}

// player counts a player who was refused.
func (r portRefusals) player(why Refusal) { r.add(r.own.players, r.all.players, why, 1) }

// datagrams counts datagrams that were dropped.
func (r portRefusals) datagrams(why Refusal, n uint64) {
	r.add(r.own.datagrams, r.all.datagrams, why, n)
}

func (r portRefusals) add(own, all map[Refusal]*atomic.Uint64, why Refusal, n uint64) {
	own[why].Add(n)
	all[why].Add(n)
	if why.ofState() {
		r.sums.state.Add(n)
	} else {
		r.sums.traffic.Add(n)
	}
}

// total is how much has been refused.
func (r portRefusals) total() uint64 { return r.sums.state.Load() + r.sums.traffic.Load() }

// counts returns what has been refused.
func (r portRefusals) counts() Refused {
	return Refused{Players: occurred(r.own.players), Datagrams: occurred(r.own.datagrams)}
}

func occurred(counts map[Refusal]*atomic.Uint64) map[Refusal]uint64 {
	values := readCounts(counts)
	maps.DeleteFunc(values, func(_ Refusal, n uint64) bool { return n == 0 })
	return values
}

// seen is what is known of a port's refusals elsewhere. It is guarded by Ports.mu.
type seen struct {
	reported Refused // To the panel,
	total    uint64  // and the sum of it.

	since   time.Time // When a line was last logged, or was not worth it.
	logged  Refused   // What had been refused then,
	traffic uint64    // and the sum of that which players caused.
	attack  bool      // The last line said that much is refused.

	score, scored uint64 // Refusals of the last minutes, and the sum when it was last changed.
	busy          bool   // It is one of Stats.Busiest.
}

// Refusals yields what the port of each allocation has refused since it was last yielded,
// for ports that have refused anything, in no order. What was yielded counts as reported,
// what a loop leaves out does not. A lock is held meanwhile: the loop must not call Ports.
func (p *Ports) Refusals() iter.Seq[types.AllocationRefusals] {
	return func(yield func(types.AllocationRefusals) bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for id, s := range p.slots {
			total := s.refusals.total()
			if total == s.seen.total {
				continue
			}
			now := s.refusals.counts()
			delta := now.since(s.seen.reported)
			s.seen.reported, s.seen.total = now, total
			if len(delta.Players)+len(delta.Datagrams) == 0 {
				continue // They were reported before they were in the sum.
			}
			if !yield(types.AllocationRefusals{ID: id, Players: toReport(delta.Players), Datagrams: toReport(delta.Datagrams)}) {
				return
			}
		}
	}
}

func toReport(counts map[Refusal]uint64) types.RefusalCounts {
	report := make(types.RefusalCounts, len(counts))
	for why, n := range counts {
		report[string(why)] = int64(min(n, math.MaxInt64))
	}
	return report
}

// logRefused logs that the port of an allocation refuses much, once a minute, and that it
// no longer does. It is called with mu held, about once a second.
func (p *Ports) logRefused(id int64, s *slot, now time.Time) {
	traffic := s.refusals.sums.traffic.Load()
	many := traffic-s.seen.traffic >= refusedThreshold
	switch {
	case many && p.refusedLines.AllowAt(id, now):
		s.seen.attack = true
		p.log.Warn("public port refuses much: it may be under attack", s.refusedSince(id)...)
	case !many && now.Sub(s.seen.since) >= refusedInterval:
		if s.seen.attack {
			p.log.Info("public port no longer refuses much", s.refusedSince(id)...)
		}
		s.seen.attack = false
	default:
		return
	}
	s.seen.since, s.seen.traffic, s.seen.logged = now, traffic, s.refusals.counts()
}

// refusedSince describes what has been refused since the last line.
func (s *slot) refusedSince(id int64) []any {
	delta := s.refusals.counts().since(s.seen.logged)
	return []any{
		slog.Int64("allocationId", id), slog.String("deviceId", s.allocation.ClientID.String()), slog.Int("port", s.allocation.Port),
		byReason("playersRefused", delta.Players), byReason("datagramsDropped", delta.Datagrams),
	}
}

func byReason(name string, counts map[Refusal]uint64) slog.Attr {
	attrs := make([]slog.Attr, 0, len(counts))
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		attrs = append(attrs, slog.Uint64(string(why), counts[why]))
	}
	return slog.GroupAttrs(name, attrs...)
}

// chooseBusiest chooses which ports Stats.Busiest is about, once a minute: those that have
// refused most, an older minute counting half as much as the next. One that is chosen stays
// until it is calm, or another refuses twice as much, so that the choice changes slowly. It
// is called with mu held.
func (p *Ports) chooseBusiest(now time.Time) {
	if now.Sub(p.chosen) < refusedInterval {
		return
	}
	p.chosen = now
	var candidates []*slot
	for _, s := range p.slots {
		traffic := s.refusals.sums.traffic.Load()
		s.seen.score = s.seen.score/2 + traffic - s.seen.scored
		s.seen.scored = traffic
		if s.seen.score >= refusedThreshold {
			candidates = append(candidates, s)
		} else {
			s.seen.busy = false
		}
	}
	weight := func(s *slot) uint64 {
		if s.seen.busy {
			return 2 * s.seen.score
		}
		return s.seen.score
	}
	slices.SortFunc(candidates, func(a, b *slot) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.allocation.ID, b.allocation.ID))
	})
	for i, s := range candidates {
		s.seen.busy = i < maxBusiest
	}
}

// busiest returns Stats.Busiest.
func (p *Ports) busiest() map[int64]Refused {
	p.mu.Lock()
	defer p.mu.Unlock()
	busiest := map[int64]Refused{}
	for id, s := range p.slots {
		if s.seen.busy {
			busiest[id] = s.refusals.counts()
		}
	}
	return busiest
}
