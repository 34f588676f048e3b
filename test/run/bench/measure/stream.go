//go:build linux

package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/player"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
)

// download measures one stream from the game.
func download(ctx context.Context, s *sample) error {
	t, err := player.StartDownload(ctx, s.subject.TCP, 1, 0)
	return s.transfer(ctx, t, err, report.Download, report.DownloadCPU)
}

// upload measures one stream to the game.
func upload(ctx context.Context, s *sample) error {
	t, err := player.StartUpload(ctx, s.subject.TCP, 1)
	return s.transfer(ctx, t, err, report.Upload, report.UploadCPU)
}

// download8 measures eight streams at once, all together.
func download8(ctx context.Context, s *sample) error {
	t, err := player.StartDownload(ctx, s.subject.TCP, 8, 0)
	return s.transfer(ctx, t, err, report.Download8, report.Download8CPU)
}

func (s *sample) transfer(ctx context.Context, t *player.Transfer, err error, rate, cost report.MetricID) error {
	if err != nil {
		return err
	}
	moved, usage, err := s.counted(ctx, t)
	if err != nil {
		return err
	}
	s.values[rate] = float64(moved) / 1e6 / usage.Elapsed.Seconds()
	s.cost(cost, usage.CPU.Seconds(), float64(moved)/1e9)
	return nil
}

// cost notes what the tunnel's processes used, for each of so many.
func (s *sample) cost(metric report.MetricID, used, of float64) {
	if len(s.subject.PIDs) > 0 {
		s.values[metric] = used / of
	}
}

// busyRate is the stream beside which round trips are measured, in bytes a
// second: far below what any tunnel here can do. Beside a stream without bounds
// one would measure how the kernel shares out the CPUs.
const busyRate = 50e6

// roundTripIdle measures round trips with nothing else going on.
func roundTripIdle(ctx context.Context, s *sample) error {
	return s.roundTrips(ctx, report.RTTIdleP50, report.RTTIdleP99, func(d time.Duration) ([]time.Duration, error) {
		return player.Echo(ctx, s.subject.TCP, d, 0)
	})
}

// roundTripBusy measures round trips beside a stream of 50 MB/s on a connection
// of its own.
func roundTripBusy(ctx context.Context, s *sample) error {
	t, err := player.StartDownload(ctx, s.subject.TCP, 1, busyRate)
	if err != nil {
		return err
	}
	if err := pause(ctx, s.warmUp()); err != nil {
		return errors.Join(err, t.Close())
	}
	before, started := t.Count(), time.Now()
	err = s.roundTrips(ctx, report.RTTBusyP50, report.RTTBusyP99, func(d time.Duration) ([]time.Duration, error) {
		return player.Echo(ctx, s.subject.TCP, d, 0)
	})
	rate := float64(t.Count()-before) / time.Since(started).Seconds()
	if err := errors.Join(err, t.Close()); err != nil {
		return err
	}
	if rate < 0.8*busyRate {
		return fmt.Errorf("%w: the stream beside it moved %.0f MB/s, not %.0f", ErrUnfit, rate/1e6, busyRate/1e6)
	}
	return nil
}

// roundTrips notes the quantiles of round trips in microseconds.
func (s *sample) roundTrips(ctx context.Context, p50, p99 report.MetricID, echo func(time.Duration) ([]time.Duration, error)) error {
	// The first ones set up what a connection needs.
	if _, err := echo(s.warmUp()); err != nil {
		return err
	}
	var times []time.Duration
	err := s.awake(ctx, func() (err error) {
		times, err = echo(s.Duration)
		return err
	})
	if err != nil {
		return err
	}
	s.quantiles(times, p50, p99, time.Microsecond)
	return nil
}

func (s *sample) quantiles(times []time.Duration, p50, p99 report.MetricID, unit time.Duration) {
	s.values[p50] = float64(report.Quantile(times, 0.50)) / float64(unit)
	s.values[p99] = float64(report.Quantile(times, 0.99)) / float64(unit)
}

// joinsAtATime is how many players are joining at any moment.
const joinsAtATime = 16

// joins measures players who come, hear the game speak and leave.
func joins(ctx context.Context, s *sample) error {
	j := player.StartJoins(ctx, s.subject.TCP, joinsAtATime)
	count, usage, err := s.counted(ctx, j)
	if err != nil {
		return err
	}
	s.values[report.Joins] = float64(count) / usage.Elapsed.Seconds()
	s.cost(report.JoinsCPU, float64(usage.CPU.Microseconds()), float64(count))
	return nil
}

// answerPatience is how long a tunnel may take to show that it is not blocked,
// or that it has passed on the end of a direction.
const answerPatience = 2 * time.Second

// halfClose measures whether the end of one direction leaves the other open.
func halfClose(ctx context.Context, s *sample) error {
	passed, err := player.HalfClose(ctx, s.subject.TCP, answerPatience)
	s.values[report.HalfClose] = truth(passed)
	return err
}

// stalledReader measures whether players who read nothing keep others from
// playing: those who come after them, over TCP and UDP.
func stalledReader(ctx context.Context, s *sample) (err error) {
	const stalled = 4
	for range stalled {
		c, err := player.Stall(ctx, s.subject.TCP)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	if err := pause(ctx, s.Duration); err != nil { // until every buffer is full
		return err
	}
	times, err := player.Echo(ctx, s.subject.TCP, s.Duration/2, time.Millisecond)
	blocked := err != nil || report.Quantile(times, 1) > answerPatience
	if s.subject.UDP != "" {
		// One datagram may get lost; it is given up long before answerPatience.
		times, err = player.EchoDatagrams(ctx, s.subject.UDP, s.atLeast(3*player.LostAfter), time.Millisecond)
		blocked = blocked || err != nil || report.Quantile(times, 0.5) >= player.LostAfter
	}
	s.values[report.Stalled] = truth(blocked)
	return ctx.Err()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
