package relay

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

// keptReport is a report and when the time ended that it covers: its AgeSeconds mean nothing.
// It is a line of a [UsageBacklog]'s file.
type keptReport struct {
	Ended  time.Time         `json:"ended"`
	Report types.UsageReport `json:"report"`
}

// What panels take: a report beyond it ends the channel.
const (
	maxUsageTime  = 366 * 24 * time.Hour // The length of the time of a report, and how long ago it ended.
	maxUsageCount = 1 << 50
)

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// valid reports whether a panel takes the report, as it does every one that was kept and is
// not damaged.
func (k keptReport) valid() bool {
	r := k.Report
	if r.Sequence < 1 || r.Seconds < 1 || r.Seconds > seconds(maxUsageTime) || len(r.Allocations) > types.MaxUsageReportAllocations {
		return false
	}
	return !slices.ContainsFunc(r.Allocations, func(a types.AllocationUsage) bool {
		return min(a.Players, a.PeakPlayers) < 0 || max(a.Players, a.PeakPlayers) > math.MaxInt32 ||
			min(a.Joins, a.DownloadBytes, a.UploadBytes, a.DownloadDatagrams, a.UploadDatagrams) < 0 ||
			max(a.Joins, a.DownloadBytes, a.UploadBytes, a.DownloadDatagrams, a.UploadDatagrams) > maxUsageCount
	})
}

func (s *usageSpan) kept() keptReport { return keptReport{Ended: s.ended, Report: s.report()} }

// report returns the report of a span, without its age.
func (s *usageSpan) report() types.UsageReport {
	report := types.UsageReport{
		Type: types.TypeUsage, Epoch: s.epoch, Sequence: s.sequence,
		Seconds:     max(1, seconds(min(s.ended.Sub(s.began)+time.Second/2, maxUsageTime))),
		Allocations: make([]types.AllocationUsage, 0, len(s.usage)),
	}
	for _, id := range slices.Sorted(maps.Keys(s.usage)) {
		of := s.usage[id]
		report.Allocations = append(report.Allocations, types.AllocationUsage{
			ID: id, Players: of.Players, PeakPlayers: of.PeakPlayers, Joins: int64(of.Joins),
			DownloadBytes: int64(of.DownloadBytes), UploadBytes: int64(of.UploadBytes),
			DownloadDatagrams: int64(of.DownloadDatagrams), UploadDatagrams: int64(of.UploadDatagrams),
		})
	}
	return report
}

// span returns the span of a report of an earlier process.
func (k keptReport) span() *usageSpan {
	s := &usageSpan{
		epoch: k.Report.Epoch, sequence: k.Report.Sequence, frozen: true,
		began: k.Ended.Add(-time.Duration(k.Report.Seconds) * time.Second), ended: k.Ended,
		usage: make(map[int64]meter.Usage, len(k.Report.Allocations)),
	}
	for _, of := range k.Report.Allocations {
		s.usage[of.ID] = meter.Usage{
			Traffic: meter.Traffic{
				DownloadBytes: uint64(of.DownloadBytes), UploadBytes: uint64(of.UploadBytes),
				DownloadDatagrams: uint64(of.DownloadDatagrams), UploadDatagrams: uint64(of.UploadDatagrams),
			},
			Joins: uint64(of.Joins), PeakPlayers: of.PeakPlayers, Players: of.Players,
		}
	}
	return s
}
