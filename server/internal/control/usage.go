package control

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

const (
	// maxUsageSeconds bounds how long ago, and how long, the time of a usage report may be: a
	// leap year.
	maxUsageSeconds = 366 * 24 * 3600
	// maxUsageCount bounds a count in a usage report, so that sums of very many reports fit
	// the database. It is a pebibyte.
	maxUsageCount = 1 << 50
)

// usageStore stores a tunnel server's usage reports, of which each follows the
// acknowledgement of the one before.
type usageStore struct {
	storer *worker // Runs store; woken when there is a report.

	mu      sync.Mutex
	waiting *db.UsageReport
}

func newUsageStore() *usageStore { return &usageStore{storer: newWorker()} }

// add has a report stored. One that waits is given up: the tunnel server sends no other
// before it is acknowledged.
func (u *usageStore) add(m types.UsageReport, now time.Time) {
	report := &db.UsageReport{
		Epoch: m.Epoch, Sequence: m.Sequence,
		Ended:   now.Add(-time.Duration(m.AgeSeconds) * time.Second),
		Seconds: int(m.Seconds),
	}
	seen := make(map[int64]bool, len(m.Allocations))
	for _, a := range m.Allocations {
		if seen[a.ID] {
			continue
		}
		seen[a.ID] = true
		report.Allocations = append(report.Allocations, db.AllocationUsage{
			AllocationID: a.ID, Players: a.Players, PeakPlayers: a.PeakPlayers,
			UsageCounts: db.UsageCounts{
				DownloadBytes: a.DownloadBytes, UploadBytes: a.UploadBytes,
				DownloadDatagrams: a.DownloadDatagrams, UploadDatagrams: a.UploadDatagrams, Joins: a.Joins,
			},
		})
	}
	u.mu.Lock()
	u.waiting = report
	u.mu.Unlock()
	u.storer.wake()
}

func (u *usageStore) take() *db.UsageReport {
	u.mu.Lock()
	defer u.mu.Unlock()
	report := u.waiting
	u.waiting = nil
	return report
}

// store stores the report and acknowledges it. While the database is unavailable it tries
// again. Once ctx has ended it gives up: the tunnel server sends the report again.
func (u *usageStore) store(ctx context.Context, log *slog.Logger, save func(context.Context, db.UsageReport) error, stored func(types.UsageAck)) {
	report := u.take()
	if report == nil {
		return
	}
	var retry backoff.Exponential
	for failing := false; ; failing = true {
		err := save(ctx, *report)
		if err == nil {
			stored(types.UsageAck{Type: types.TypeUsageAck, Epoch: report.Epoch, Sequence: report.Sequence})
			return
		}
		if ctx.Err() != nil {
			return
		}
		if !failing {
			log.WarnContext(ctx, "usage not stored yet", slog.Any("error", err))
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// storeUsage stores a usage report of the session's tunnel server.
func (s *session) storeUsage(ctx context.Context) {
	save := func(ctx context.Context, report db.UsageReport) error {
		return s.hub.opts.Store.AddUsage(ctx, s.device, report)
	}
	// An error means that the channel has ended: the report is sent again.
	s.usage.store(ctx, s.log, save, func(ack types.UsageAck) { _ = s.post(ack) })
}

func checkUsage(report types.UsageReport) error {
	switch {
	case report.Sequence < 1:
		return policyViolation("sequence: at least 1")
	case report.AgeSeconds < 0 || report.AgeSeconds > maxUsageSeconds:
		return policyViolation("ageSeconds: 0 to %d", maxUsageSeconds)
	case report.Seconds < 1 || report.Seconds > maxUsageSeconds:
		return policyViolation("seconds: 1 to %d", maxUsageSeconds)
	case len(report.Allocations) > types.MaxUsageReportAllocations:
		return policyViolation("allocations: at most %d", types.MaxUsageReportAllocations)
	}
	for _, a := range report.Allocations {
		for _, players := range []int{a.Players, a.PeakPlayers} {
			if players < 0 || players > math.MaxInt32 {
				return policyViolation("players: 0 to %d", math.MaxInt32)
			}
		}
		for _, n := range []int64{a.Joins, a.DownloadBytes, a.UploadBytes, a.DownloadDatagrams, a.UploadDatagrams} {
			if n < 0 || n > maxUsageCount {
				return policyViolation("usage: counts are 0 to 2^50")
			}
		}
	}
	return nil
}
