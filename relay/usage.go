package relay

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

const (
	// usageInterval is the time of which a report is, while the panel takes them.
	usageInterval = 10 * time.Second
	// usageCounts bounds the counts of an allocation and a time that wait for the panel. Each
	// takes about 150 bytes. Beyond it those of the oldest minutes become one of their hour,
	// and then those of the oldest hours one: no count is ever lost.
	usageCounts = 200_000
	// lastUsageWait bounds the wait for the panel to store the last reports of a tunnel
	// server that ends.
	lastUsageWait = time.Second
)

// KeptUsage are reports of usage that no panel has stored yet, for the next process.
type KeptUsage struct {
	Reports []KeptReport `json:"reports"` // In the order in which they are to be sent.
}

// KeptReport is a report and when the time ended of which it is: its AgeSeconds mean
// nothing.
type KeptReport struct {
	Ended  time.Time         `json:"ended"`
	Report types.UsageReport `json:"report"`
}

// usage are the counts of what allocations have carried, on their way to the panel. It
// implements [controlclient.Usage]. Its methods may be called from any goroutine.
type usage struct {
	ports    *publicport.Ports
	interval time.Duration
	most     int // usageCounts, except in tests.

	mu       sync.Mutex
	epoch    uuid.UUID
	sequence int64
	taken    time.Time      // When the counts of ports were last taken.
	players  map[int64]int  // As taken then; those that are 0 are absent.
	sent     []KeptReport   // Numbered. The first may have been sent, the others are of an earlier process.
	spans    []*usageOfSpan // By time.
	counts   int            // In spans.
}

// usageOfSpan is the usage of a time by allocation.
type usageOfSpan struct {
	began, ended time.Time
	usage        map[int64]meter.Usage
}

func newUsage(ports *publicport.Ports, interval time.Duration, last *KeptUsage, now time.Time) *usage {
	u := &usage{
		ports: ports, interval: cmp.Or(interval, usageInterval), most: usageCounts,
		epoch: uuid.New(), taken: now, players: map[int64]int{},
	}
	if last != nil {
		u.sent = slices.Clone(last.Reports)
	}
	return u
}

// tick takes the counts of ports once they are of an interval.
func (u *usage) tick(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.taken) >= u.interval {
		u.take(now)
	}
}

// take takes the counts of ports. Those that wait for the panel are kept by minute. It is
// called with mu held, and reports whether ports still have connections of allocations
// that are no longer wanted.
func (u *usage) take(now time.Time) (leaving bool) {
	span := &usageOfSpan{began: u.taken, ended: now, usage: map[int64]meter.Usage{}}
	players := map[int64]int{}
	leaving = u.ports.TakeUsage(func(id int64, taken meter.Usage) {
		if taken != (meter.Usage{}) || u.players[id] != 0 {
			span.usage[id] = add(span.usage[id], taken)
		}
		if taken.Players > 0 {
			players[id] += taken.Players
		}
	})
	u.taken, u.players = now, players
	if len(span.usage) == 0 {
		return leaving
	}
	u.counts += len(span.usage)
	u.spans = append(u.spans, span)
	if len(u.sent) > 0 {
		u.joinLast(func(a, b *usageOfSpan) bool { return sameSpan(a, b, time.Minute) }, len(u.spans)-1)
	}
	u.bound()
	return leaving
}

// add returns the usage of two times, of which b is the later one, or of two ports at the
// same time.
func add(a, b meter.Usage) meter.Usage {
	return meter.Usage{
		Traffic: meter.Traffic{
			DownloadBytes: a.DownloadBytes + b.DownloadBytes, UploadBytes: a.UploadBytes + b.UploadBytes,
			DownloadDatagrams: a.DownloadDatagrams + b.DownloadDatagrams, UploadDatagrams: a.UploadDatagrams + b.UploadDatagrams,
		},
		Joins: a.Joins + b.Joins, PeakPlayers: max(a.PeakPlayers, b.PeakPlayers), Players: b.Players,
	}
}

func sameSpan(a, b *usageOfSpan, length time.Duration) bool {
	return a.began.Truncate(length).Equal(b.began.Truncate(length))
}

// joinLast makes the i-th span one with that before it, if they belong together.
func (u *usage) joinLast(together func(a, b *usageOfSpan) bool, i int) bool {
	if i == 0 || !together(u.spans[i-1], u.spans[i]) {
		return false
	}
	a, b := u.spans[i-1], u.spans[i]
	before := len(a.usage) + len(b.usage)
	for id, of := range b.usage {
		a.usage[id] = add(a.usage[id], of)
	}
	a.ended = b.ended
	u.counts -= before - len(a.usage)
	u.spans = slices.Delete(u.spans, i, i+1)
	return true
}

// bound makes the counts fewer where they are too many: the oldest first by hour, and then
// whatever time they are of.
func (u *usage) bound() {
	for _, together := range []func(a, b *usageOfSpan) bool{
		func(a, b *usageOfSpan) bool { return sameSpan(a, b, time.Hour) },
		func(a, b *usageOfSpan) bool { return true },
	} {
		for i := 1; u.counts > u.most && i < len(u.spans); {
			if !u.joinLast(together, i) {
				i++
			}
		}
	}
}

// Next implements [controlclient.Usage].
func (u *usage) Next(now time.Time) *types.UsageReport {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sent) == 0 && !u.number() {
		return nil
	}
	report := u.sent[0].Report
	report.AgeSeconds = max(0, int64(now.Sub(u.sent[0].Ended)/time.Second))
	return &report
}

// number makes a report of the oldest counts, and reports whether there are any. It is
// called with mu held.
func (u *usage) number() bool {
	if len(u.spans) == 0 {
		return false
	}
	span := u.spans[0]
	report := types.UsageReport{
		Type: types.TypeUsage, Epoch: u.epoch, Sequence: u.sequence + 1,
		Seconds: max(1, int64(math.Round(span.ended.Sub(span.began).Seconds()))),
	}
	ids := slices.Sorted(maps.Keys(span.usage))
	for _, id := range ids[:min(len(ids), types.MaxUsageReportAllocations)] {
		report.Allocations = append(report.Allocations, toUsageReport(id, span.usage[id]))
		delete(span.usage, id)
	}
	u.counts -= len(report.Allocations)
	if len(span.usage) == 0 {
		u.spans = slices.Delete(u.spans, 0, 1)
	}
	u.sequence++
	u.sent = append(u.sent, KeptReport{Ended: span.ended, Report: report})
	return true
}

func toUsageReport(id int64, of meter.Usage) types.AllocationUsage {
	return types.AllocationUsage{
		ID: id, Players: of.Players, PeakPlayers: of.PeakPlayers, Joins: int64(of.Joins),
		DownloadBytes: int64(of.DownloadBytes), UploadBytes: int64(of.UploadBytes),
		DownloadDatagrams: int64(of.DownloadDatagrams), UploadDatagrams: int64(of.UploadDatagrams),
	}
}

// Stored implements [controlclient.Usage].
func (u *usage) Stored(m types.UsageAck) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sent) > 0 && u.sent[0].Report.Epoch == m.Epoch && u.sent[0].Report.Sequence == m.Sequence {
		u.sent = slices.Delete(u.sent, 0, 1)
	}
}

// unreported reports whether there are counts that the panel has not stored.
func (u *usage) unreported() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sent)+len(u.spans) > 0
}

// keep takes what ports have counted until the end, and returns all that the panel has not
// stored; nil: nothing.
func (u *usage) keep(now time.Time) *KeptUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.take(now)
	for u.number() {
		continue
	}
	if len(u.sent) == 0 {
		return nil
	}
	return &KeptUsage{Reports: slices.Clone(u.sent)}
}

// reportLast sends which players have left and what they have used until their ports were
// closed, if there is a channel. It waits for the last players to leave and for the panel to store it, but not
// for long: what is left is kept for the next process.
func (s *Server) reportLast() {
	ctx, cancel := context.WithTimeout(context.Background(), lastUsageWait)
	defer cancel()
	ticker := time.NewTicker(lastUsageWait / 100)
	defer ticker.Stop()
	for s.control.TakesUsage() {
		s.usage.mu.Lock()
		leaving := s.usage.take(time.Now())
		s.usage.mu.Unlock()
		s.control.ReportConnections()
		if !leaving && !s.usage.unreported() {
			return
		}
		s.control.ReportUsage(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
