//go:build linux

package measure

import (
	"context"
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/player"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
)

const (
	// uplinkFill is how long a transfer runs before anything is measured beside
	// it: it has found the link's rate and filled what queue it fills.
	uplinkFill = 2 * time.Second
	// uplinkLeast is the least duration of a sample: queues breathe over seconds.
	uplinkLeast = 4 * time.Second
	// uplinkGap is the pause between two round trips.
	uplinkGap = 5 * time.Millisecond
)

// uplinkTCP measures a game's round trips over TCP beside a download that fills
// the home's uplink.
func uplinkTCP(ctx context.Context, s *sample) error {
	return s.besideTransfer(ctx, report.UplinkTCPP50, report.UplinkTCPP99, func(d time.Duration) ([]time.Duration, error) {
		return player.Echo(ctx, s.subject.TCP, d, uplinkGap)
	})
}

// uplinkUDP measures the same over UDP.
func uplinkUDP(ctx context.Context, s *sample) error {
	return s.besideTransfer(ctx, report.UplinkUDPP50, report.UplinkUDPP99, func(d time.Duration) ([]time.Duration, error) {
		return player.EchoDatagrams(ctx, s.subject.UDP, d, uplinkGap)
	})
}

func (s *sample) besideTransfer(ctx context.Context, p50, p99 report.MetricID, echo func(time.Duration) ([]time.Duration, error)) (err error) {
	if err := s.Uplink.Shape(ctx, s.subject.Uplink); err != nil {
		return err
	}
	// What is measured next on this loopback must not pass the uplink.
	defer func() { err = errors.Join(err, s.Uplink.Shape(context.WithoutCancel(ctx), nil)) }()
	t, err := player.StartDownload(ctx, s.subject.TCP, 1, 0)
	if err != nil {
		return err
	}
	if err := pause(ctx, s.atLeast(uplinkFill)); err != nil {
		return errors.Join(err, t.Close())
	}
	before, started := t.Count(), time.Now()
	var times []time.Duration
	err = s.awake(ctx, func() (err error) {
		times, err = echo(s.atLeast(uplinkLeast))
		return err
	})
	moved := float64(t.Count()-before) * 8 / 1e6 / time.Since(started).Seconds()
	if err := errors.Join(err, t.Close()); err != nil {
		return err
	}
	s.values[report.UplinkRate] = moved
	s.quantiles(times, p50, p99, time.Millisecond)
	return nil
}
