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
	// usageInterval is the time that a report covers while the panel takes them.
	usageInterval = 10 * time.Second
	// usageCounts bounds the counts of an allocation and a time that wait for the panel. Each
	// takes about 150 bytes, in memory and in the file. Beyond it, those of the oldest minutes
	// become one of their hour, then of their day, and then one of all time: no count is lost.
	usageCounts = 200_000
	// lastUsageWait bounds the wait for the panel to store the last reports of a tunnel
	// server that ends.
	lastUsageWait = time.Second
)

// usage are the counts of what allocations have carried, on their way to the panel. It
// implements [controlclient.Usage]. Its methods may be called from any goroutine, but tick
// and leave from one at a time.
type usage struct {
	ports    *publicport.Ports
	backlog  *UsageBacklog // Only tick and leave use it.
	interval time.Duration
	most     int // usageCounts, except in tests.

	mu       sync.Mutex
	epoch    uuid.UUID
	sequence int64         // Of the last span.
	taken    time.Time     // When the counts of ports were last taken.
	players  map[int64]int // As taken then; those that are 0 are absent.
	spans    []*usageSpan  // In the order in which they are reported.
	merged   bool          // Spans that the file may have were merged since it was written.
}

// usageSpan is the usage of a time by allocation, for one report.
//
// A panel adds the first report of an epoch and sequence that it receives, and ignores every
// other one up to that sequence. So the span in the file may be an earlier, smaller one than
// the span that is sent: whichever arrives counts, and only it.
type usageSpan struct {
	epoch        uuid.UUID
	sequence     int64
	began, ended time.Time
	usage        map[int64]meter.Usage // At most types.MaxUsageReportAllocations.
	frozen       bool                  // It may have been sent, by this process or an earlier one, and does not change.
	unsaved      bool                  // It has changed since it was given to the backlog.
}

func newUsage(ports *publicport.Ports, interval time.Duration, backlog *UsageBacklog, now time.Time) *usage {
	u := &usage{
		ports: ports, backlog: backlog, interval: cmp.Or(interval, usageInterval), most: usageCounts,
		epoch: uuid.New(), taken: now, players: map[int64]int{},
	}
	for _, kept := range backlog.load() {
		u.spans = append(u.spans, kept.span())
	}
	return u
}

// tick takes the counts of ports once an interval has passed, and has the file keep what the
// panel does not store. To be called every tick. takes says whether there is a panel that
// takes reports: what it is about to be sent is saved only if it is still there at the next
// tick.
func (u *usage) tick(now time.Time, takes bool) {
	u.mu.Lock()
	waiting := len(u.spans) > 0
	// Ticks are not exact: without the half, an interval would often be a tick longer.
	if now.Sub(u.taken) >= u.interval-tick/2 {
		u.take(now)
	}
	save := waiting || !takes || u.merged || len(u.spans) == 0
	u.mu.Unlock()
	if save {
		u.save(now)
	}
}

// save has the file hold what waits, and nothing else once nothing waits.
func (u *usage) save(now time.Time) {
	u.mu.Lock()
	merged := u.merged
	if !merged && !u.backlog.due(now) {
		u.mu.Unlock()
		return
	}
	whole := merged || !u.backlog.complete
	var changed []keptReport
	for _, s := range u.spans {
		if whole || s.unsaved {
			changed, s.unsaved = append(changed, s.kept()), false
		}
	}
	empty := len(u.spans) == 0
	u.mu.Unlock()
	switch {
	case u.backlog.path == "":
	case empty:
		u.backlog.clear(now)
	case whole:
		if u.backlog.replace(changed, now) != nil && merged {
			u.backlog.discard() // See Next.
		}
	case len(changed) > 0:
		u.backlog.append(changed, now)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.merged = false
}

// take takes the counts of ports. Those of a minute are kept together as long as they are
// not sent. It is called with mu held.
func (u *usage) take(now time.Time) {
	taken, players := map[int64]meter.Usage{}, map[int64]int{}
	u.ports.TakeUsage(func(id int64, of meter.Usage) {
		if of != (meter.Usage{}) || u.players[id] != 0 {
			taken[id] = addPort(taken[id], of)
		}
		if of.Players > 0 {
			players[id] += of.Players
		}
	})
	u.add(taken, u.taken, now)
	u.taken, u.players = now, players
	u.bound()
}

// addPort returns the usage of two ports of an allocation at the same time. The most players
// at any moment are not known exactly, but no fewer than there are now.
func addPort(a, b meter.Usage) meter.Usage {
	sum := addLater(a, b)
	sum.Players = a.Players + b.Players
	sum.PeakPlayers = max(sum.PeakPlayers, sum.Players)
	return sum
}

// addLater returns the usage of two times, of which b is the later one.
func addLater(a, b meter.Usage) meter.Usage {
	return meter.Usage{
		Traffic: meter.Traffic{
			DownloadBytes: a.DownloadBytes + b.DownloadBytes, UploadBytes: a.UploadBytes + b.UploadBytes,
			DownloadDatagrams: a.DownloadDatagrams + b.DownloadDatagrams, UploadDatagrams: a.UploadDatagrams + b.UploadDatagrams,
		},
		Joins: a.Joins + b.Joins, PeakPlayers: max(a.PeakPlayers, b.PeakPlayers), Players: b.Players,
	}
}

// add adds usage to the spans of its minute. An allocation stays in the span in which it is.
func (u *usage) add(taken map[int64]meter.Usage, began, ended time.Time) {
	first := len(u.spans)
	for first > 0 && !u.spans[first-1].frozen && sameTime(u.spans[first-1].began, began, time.Minute) {
		first--
	}
	for _, id := range slices.Sorted(maps.Keys(taken)) {
		s := spanFor(id, u.spans[first:])
		if s == nil {
			u.sequence++
			s = &usageSpan{epoch: u.epoch, sequence: u.sequence, began: began, usage: map[int64]meter.Usage{}}
			u.spans = append(u.spans, s)
		}
		s.usage[id] = addLater(s.usage[id], taken[id])
		s.ended, s.unsaved = ended, true
	}
}

// spanFor returns the span to which usage of an allocation is added, or nil if it takes
// another one.
func spanFor(id int64, spans []*usageSpan) *usageSpan {
	for i, s := range spans {
		_, has := s.usage[id]
		if has || i == len(spans)-1 && len(s.usage) < types.MaxUsageReportAllocations {
			return s
		}
	}
	return nil
}

func sameTime(a, b time.Time, length time.Duration) bool {
	return a.Truncate(length).Equal(b.Truncate(length))
}

// bound merges the oldest spans where there are too many counts: by a quarter more than it
// takes, since the whole file is written again. Those of earlier processes stay as they are.
func (u *usage) bound() {
	var fixed, free int
	for _, s := range u.spans {
		if s.frozen {
			fixed += len(s.usage)
		} else {
			free += len(s.usage)
		}
	}
	most := max(u.most-fixed, u.most/4)
	if free <= most {
		return
	}
	for _, length := range []time.Duration{time.Hour, 24 * time.Hour, math.MaxInt64} {
		free = u.merge(length, free, most*3/4)
	}
}

// merge merges the spans of each time of a length, from the oldest on, until free counts
// have become most. It returns how many there are then.
func (u *usage) merge(length time.Duration, free, most int) int {
	var merged []*usageSpan
	rest := u.spans
	for len(rest) > 0 && free > most {
		n := 1
		for n < len(rest) && !rest[0].frozen && sameTime(rest[0].began, rest[n].began, length) {
			n++
		}
		spans, saved := mergeSpans(rest[:n])
		merged, rest = append(merged, spans...), rest[n:]
		free -= saved
		u.merged = u.merged || saved > 0
	}
	u.spans = append(merged, rest...)
	return free
}

// mergeSpans returns the usage of spans as that of one time, in the last of them, and how
// many counts fewer those have.
func mergeSpans(spans []*usageSpan) (merged []*usageSpan, saved int) {
	if len(spans) == 1 {
		return spans, 0
	}
	began, ended := spans[0].began, spans[0].ended
	sum := map[int64]meter.Usage{}
	for _, s := range spans {
		if s.ended.After(ended) {
			ended = s.ended
		}
		for id, of := range s.usage {
			sum[id] = addLater(sum[id], of)
		}
		saved += len(s.usage)
	}
	if saved -= len(sum); saved == 0 {
		return spans, 0
	}
	parts := slices.Collect(slices.Chunk(slices.Sorted(maps.Keys(sum)), types.MaxUsageReportAllocations))
	merged = spans[len(spans)-len(parts):]
	for i, part := range parts {
		s := merged[i]
		s.began, s.ended, s.usage, s.unsaved = began, ended, make(map[int64]meter.Usage, len(part)), true
		for _, id := range part {
			s.usage[id] = sum[id]
		}
	}
	return merged, saved
}

// Next implements [controlclient.Usage].
func (u *usage) Next(now time.Time) *types.UsageReport {
	u.mu.Lock()
	defer u.mu.Unlock()
	// If this process is killed once a merged span is on its way, the next one must not have
	// a file with the spans that it was made of: those of them that arrive first would count
	// twice.
	if len(u.spans) == 0 || u.merged {
		return nil
	}
	s := u.spans[0]
	s.frozen = true
	report := s.report()
	report.AgeSeconds = seconds(min(max(0, now.Sub(s.ended)), maxUsageTime))
	return &report
}

// Stored implements [controlclient.Usage].
func (u *usage) Stored(m types.UsageAck) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.spans) > 0 && u.spans[0].frozen && u.spans[0].epoch == m.Epoch && u.spans[0].sequence == m.Sequence {
		u.spans = slices.Delete(u.spans, 0, 1)
	}
}

// unreported reports whether there are counts that the panel has not stored.
func (u *usage) unreported() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.spans) > 0
}

// leave takes what ports have counted until the end, and leaves all that the panel has not
// stored to the next process.
func (u *usage) leave(now time.Time) {
	u.mu.Lock()
	u.take(now)
	left := make([]keptReport, 0, len(u.spans))
	for _, s := range u.spans {
		left = append(left, s.kept())
	}
	u.mu.Unlock()
	u.backlog.leave(left, now)
}

// takeNow takes what ports have counted until now.
func (u *usage) takeNow(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.take(now)
}

// reportLast sends which players have left and what they have used until their ports were
// closed, if there is a channel. It waits for the last players to leave, and for the panel to
// store the reports, but not for long: what is left is kept for the next process.
func (s *Server) reportLast() {
	began := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(lastUsageWait))
	defer cancel()
	ticker := time.NewTicker(lastUsageWait / 100)
	defer ticker.Stop()
	for taken := false; s.control.TakesUsage(); {
		// Once, so that it is one report. Who takes longer to leave is left to the next process.
		if now := time.Now(); !taken && (!s.ports.Leaving() || now.Sub(began) >= lastUsageWait/2) {
			s.usage.takeNow(now)
			taken = true
		}
		s.control.ReportConnections()
		if taken {
			if !s.usage.unreported() {
				return
			}
			s.control.ReportUsage(time.Now())
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
