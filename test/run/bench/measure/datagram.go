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

// udpRoundTrip measures round trips over UDP with nothing else going on.
func udpRoundTrip(ctx context.Context, s *sample) error {
	return s.roundTrips(ctx, report.UDPIdleP50, report.UDPIdleP99, func(d time.Duration) ([]time.Duration, error) {
		return player.EchoDatagrams(ctx, s.subject.UDP, d, 0)
	})
}

const (
	loadFlows  = 16
	loadWindow = 16
)

// udpLoad measures how many datagrams come back when 256 are always in flight.
func udpLoad(ctx context.Context, s *sample) error {
	l, err := player.StartLoad(ctx, s.subject.UDP, loadFlows, loadWindow)
	if err != nil {
		return err
	}
	answered, usage, err := s.counted(ctx, l)
	if err != nil {
		return err
	}
	s.values[report.UDPLoad] = float64(answered) / usage.Elapsed.Seconds()
	s.values[report.UDPLoadLost] = 100 * float64(l.Lost()) / float64(l.Count()+l.Lost())
	s.cost(report.UDPLoadCPU, float64(usage.CPU.Microseconds()), float64(answered))
	return nil
}

// udpFlows counts the players who are answered when so many come at once.
func udpFlows(ctx context.Context, s *sample) error {
	all := true
	_, err := s.measured(func() error {
		for _, n := range s.Flows {
			answered, err := player.Flows(ctx, s.subject.UDP, n)
			if err != nil {
				return fmt.Errorf("%d flows: %w", n, err)
			}
			s.values[report.UDPFlows(n)] = float64(answered)
			all = all && answered == n
		}
		return nil
	})
	if all {
		s.foreign = 0 // Nobody was in the way.
	}
	return err
}

// offeredRate is in datagrams a second.
const offeredRate = 20_000

// udpOffered measures what becomes of datagrams that come at a fixed rate.
func udpOffered(ctx context.Context, s *sample) (err error) {
	f, err := player.OpenOffer(ctx, s.subject.UDP, loadFlows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Run(ctx, offeredRate, s.warmUp()); err != nil {
		return err
	}
	var o player.Offered
	if err := s.awake(ctx, func() (err error) {
		o, err = s.offer(ctx, f, offeredRate, s.Duration)
		return err
	}); err != nil {
		return err
	}
	s.values[report.UDPOfferedLost] = 100 * float64(o.Lost) / float64(o.Sent)
	if len(o.Times) > 0 { // Of nothing there is no median.
		s.quantiles(o.Times, report.UDPOfferedP50, report.UDPOfferedP99, time.Microsecond)
	}
	return nil
}

// offer is f.Run, unless the machine was too busy for the rate.
func (s *sample) offer(ctx context.Context, f *player.Offer, rate int, d time.Duration) (player.Offered, error) {
	o, err := f.Run(ctx, rate, d)
	if want := int(0.95 * float64(rate) * d.Seconds()); err == nil && !s.Brief && o.Sent < want {
		err = fmt.Errorf("%w: %d datagrams were sent, not %d", ErrUnfit, o.Sent, want)
	}
	return o, err
}
