package relay

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

// While the panel is away counts get coarser, but none is lost.
func TestUsage_IsBoundedWithoutLoss(t *testing.T) {
	began := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	u := &usage{most: 100, epoch: uuid.New(), players: map[int64]int{}}
	const minutes = 600
	for minute := range minutes {
		for part := range 6 {
			at := began.Add(time.Duration(minute)*time.Minute + time.Duration(part)*10*time.Second)
			span := &usageOfSpan{began: at, ended: at.Add(10 * time.Second), usage: map[int64]meter.Usage{
				1: {Traffic: meter.Traffic{UploadBytes: 1}, Joins: 1, PeakPlayers: minute},
				2: {Traffic: meter.Traffic{DownloadBytes: 2}},
			}}
			u.spans = append(u.spans, span)
			u.counts += len(span.usage)
			u.joinLast(func(a, b *usageOfSpan) bool { return sameSpan(a, b, time.Minute) }, len(u.spans)-1)
			u.bound()
			if u.counts > u.most {
				t.Fatalf("%d counts", u.counts)
			}
		}
	}
	sums, peak, seconds := map[int64]int64{}, 0, int64(0)
	now := began.Add(minutes * time.Minute)
	var last *types.UsageReport
	for report := u.Next(now); report != nil; report = u.Next(now) {
		for _, of := range report.Allocations {
			sums[of.ID] += of.UploadBytes + of.DownloadBytes
			peak = max(peak, of.PeakPlayers)
		}
		seconds += report.Seconds
		u.Stored(types.UsageAck{Epoch: report.Epoch, Sequence: report.Sequence})
		last = report
	}
	if sums[1] != minutes*6 || sums[2] != minutes*12 || peak != minutes-1 || seconds != minutes*60 || u.counts != 0 {
		t.Errorf("sums %v, peak %d, %d seconds, %d counts left", sums, peak, seconds, u.counts)
	}
	if last.Seconds != 60 || last.AgeSeconds != 0 {
		t.Errorf("the last minute is one of %d s, %d s ago", last.Seconds, last.AgeSeconds)
	}
}
