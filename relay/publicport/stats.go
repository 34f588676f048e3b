package publicport

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// State is the protocol of an allocation and whether its public port accepts new
// players. A draining port does not, on purpose.
type State struct {
	Protocol types.Protocol
	Open     bool
	Draining bool
}

// Stats are counts of a tunnel server's public ports, now or since it was made.
type Stats struct {
	Ports map[State]int // Allocations that the panel wants here, by what became of them.

	Players        int64              // TCP connections now.
	PlayersJoined  uint64             // TCP connections ever accepted.
	PlayersRefused map[Refusal]uint64 // TCP connections ever refused, by reason.

	Dropped map[Refusal]uint64 // Datagrams ever dropped by public ports, by reason.

	// Busiest are the counts of the at most 20 allocations whose ports have refused most in
	// the last minutes, by id, since the ports were opened. They change once a minute.
	Busiest map[int64]Refused
}

// counters are counted where things happen. Nothing on the way of a player's bytes
// takes more than an atomic addition.
type counters struct {
	players atomic.Int64
	joined  atomic.Uint64
	refusals
}

func newCounters() *counters { return &counters{refusals: newRefusals()} }

// refusals are counts of refusals.
type refusals struct {
	players, datagrams map[Refusal]*atomic.Uint64 // Their keys never change.
}

func newRefusals() refusals {
	return refusals{players: newCounts(playerRefusals), datagrams: newCounts(datagramRefusals)}
}

func newCounts[K comparable](keys []K) map[K]*atomic.Uint64 {
	counts := make(map[K]*atomic.Uint64, len(keys))
	for _, key := range keys {
		counts[key] = new(atomic.Uint64)
	}
	return counts
}

func readCounts[K comparable](counts map[K]*atomic.Uint64) map[K]uint64 {
	values := make(map[K]uint64, len(counts))
	for key, n := range counts {
		values[key] = n.Load()
	}
	return values
}

// Players is the number of TCP connections now.
func (p *Ports) Players() int64 { return p.counters.players.Load() }

// Stats returns counts. It may be called at any time, from any goroutine.
func (p *Ports) Stats() Stats {
	return Stats{
		Ports:          p.count(),
		Players:        p.counters.players.Load(),
		PlayersJoined:  p.counters.joined.Load(),
		PlayersRefused: readCounts(p.counters.refusals.players),
		Dropped:        readCounts(p.counters.datagrams),
		Busiest:        p.busiest(),
	}
}

// count returns how many of the wanted ports are in which state.
func (p *Ports) count() map[State]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[State]int{}
	for _, s := range p.slots {
		drains := draining(s.allocation)
		counts[State{Protocol: s.allocation.Protocol, Open: s.reason == "" && !drains, Draining: drains}]++
	}
	return counts
}

// Reports returns what is true of every allocation now, sorted by id.
func (p *Ports) Reports() []types.AllocationReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	reports := make([]types.AllocationReport, 0, len(p.slots))
	for _, id := range slices.Sorted(maps.Keys(p.slots)) {
		s := p.slots[id]
		report := types.AllocationReport{ID: id, State: types.ReportReady}
		if drained := s.drained(); drained {
			report.Drained = &drained
		} else if reason := s.reason; reason != "" {
			report.State, report.Reason = types.ReportFailed, &reason
		}
		reports = append(reports, report)
	}
	return reports
}
