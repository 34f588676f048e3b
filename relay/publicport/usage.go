package publicport

import (
	"slices"

	"github.com/eclitunnel/eclitunnel/relay/meter"
)

// goneUsage counts for an allocation that is no longer wanted, while its last players
// leave.
type goneUsage struct {
	id    int64
	usage *meter.Allocation
	ended bool // There were no connections when it was last looked at.
}

// TakeUsage calls take with what each allocation has carried since the last call, by id,
// in no order. For one that has been removed it may be called beside another one of the
// same id. A lock is held meanwhile: take must not call Ports.
func (p *Ports) TakeUsage(take func(id int64, usage meter.Usage)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.gone[:0]
	for _, g := range p.gone {
		open := g.usage.Open() // Before: what is counted until the end is taken.
		take(g.id, g.usage.Take())
		// A datagram may be counted right after the end of its flow: it is looked at once
		// more.
		if open || !g.ended {
			g.ended = !open
			kept = append(kept, g)
		}
	}
	clear(p.gone[len(kept):])
	p.gone = kept
	for id, s := range p.slots {
		take(id, s.usage.Take())
	}
}

// Leaving reports whether players of ports that were removed are still leaving.
func (p *Ports) Leaving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.gone, func(g goneUsage) bool { return g.usage.Open() })
}
