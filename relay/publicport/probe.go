package publicport

import (
	"math"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Probe returns what has arrived at the public port of an allocation, to find out whether a
// connection or a datagram has come through to it, and whether it was refused. It reports
// whether there is such an allocation.
func (p *Ports) Probe(id int64) (probed types.ProbedPort, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[id]
	if s == nil {
		return types.ProbedPort{}, false
	}
	counts := s.refusals.counts()
	refused := types.RefusalCounts{}
	arrived := s.usage.Arrived()
	for _, by := range []map[Refusal]uint64{counts.Players, counts.Datagrams} {
		for why, n := range by {
			refused[string(why)] = bounded(uint64(refused[string(why)]) + n)
			arrived += n
		}
	}
	return types.ProbedPort{Open: s.port != nil && s.reason == "", Arrived: bounded(arrived), Refused: &refused}, true
}

func bounded(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
