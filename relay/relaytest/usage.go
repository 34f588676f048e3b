package relaytest

import (
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// usage is what a tunnel server has reported of its traffic.
type usage struct {
	refused bool // The panel takes none, as those of older versions.
	held    bool // No report is acknowledged,
	ignored bool // or stored.
	stored  map[uuid.UUID]int64
	sums    map[int64]types.AllocationUsage
	seconds int64 // Of the longest time that a report was of.
	reports int   // Ever received.
}

func newUsage() usage {
	return usage{stored: map[uuid.UUID]int64{}, sums: map[int64]types.AllocationUsage{}}
}

func (u *usage) wanted() *bool {
	if u.refused {
		return nil
	}
	wanted := true
	return &wanted
}

// takeUsage adds up a report once. It is called with mu held.
func (p *Panel) takeUsage(m types.UsageReport) {
	p.usage.reports++
	if p.usage.refused {
		p.t.Error("a usage report for a panel that takes none")
	}
	if p.usage.ignored {
		return
	}
	if m.Sequence > p.usage.stored[m.Epoch] {
		p.usage.stored[m.Epoch] = m.Sequence
		p.usage.seconds = max(p.usage.seconds, m.Seconds)
		for _, of := range m.Allocations {
			sum := p.usage.sums[of.ID]
			sum.ID, sum.Players, sum.PeakPlayers = of.ID, of.Players, max(sum.PeakPlayers, of.PeakPlayers)
			sum.Joins += of.Joins
			sum.DownloadBytes += of.DownloadBytes
			sum.UploadBytes += of.UploadBytes
			sum.DownloadDatagrams += of.DownloadDatagrams
			sum.UploadDatagrams += of.UploadDatagrams
			p.usage.sums[of.ID] = sum
		}
	}
	if !p.usage.held {
		_ = p.conn.Send(types.UsageAck{Type: types.TypeUsageAck, Epoch: m.Epoch, Sequence: m.Sequence})
	}
}

// RefuseUsage makes the panel, from its next snapshot on, one that takes no usage.
func (p *Panel) RefuseUsage() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.usage.refused = true
}

// HoldUsage makes the panel store reports of usage without acknowledging any, or
// acknowledge the next ones again.
func (p *Panel) HoldUsage(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.usage.held = held
}

// IgnoreUsage makes the panel neither store nor acknowledge reports of usage, as without its
// database, or take the next ones again.
func (p *Panel) IgnoreUsage(ignored bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.usage.ignored = ignored
}

// UsageReports returns how many reports of usage were ever received.
func (p *Panel) UsageReports() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usage.reports
}

// AwaitUsageReports returns once so many reports of usage were received.
func (p *Panel) AwaitUsageReports(n int) {
	p.t.Helper()
	p.await("reports of usage", func() bool { return p.usage.reports >= n })
}

// AwaitUsage returns once the sums of what was reported of an allocation fulfil a
// condition.
func (p *Panel) AwaitUsage(id int64, met func(types.AllocationUsage) bool) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the sums are %+v", p.Usage()[id])
		}
	}()
	p.await("the usage", func() bool { return met(p.usage.sums[id]) })
}

// Usage returns the sums of what was reported, by allocation.
func (p *Panel) Usage() map[int64]types.AllocationUsage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.usage.sums)
}

// UsageEpochs returns the processes that have reported usage.
func (p *Panel) UsageEpochs() []uuid.UUID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.usage.stored))
}
