//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// echo measures round trips, over TCP or UDP.
type echo func(ctx context.Context, addr string, d, pause time.Duration) ([]time.Duration, error)

// roundTrips notes the quantiles of round trips in microseconds.
func (s *sample) roundTrips(ctx context.Context, name string, echo echo, addr string) error {
	// The first ones set up what a connection needs.
	if _, err := echo(ctx, addr, s.warmUp(), 0); err != nil {
		return err
	}
	return s.kept(ctx, func() error {
		times, err := echo(ctx, addr, s.Duration, 0)
		s.quantiles(name, times, time.Microsecond)
		return err
	})
}

// roundTripIdle measures round trips with nothing else going on.
func roundTripIdle(ctx context.Context, s *sample) error {
	return s.roundTrips(ctx, "rtt-idle", traffic.Echo, s.tcp)
}

// udpRoundTrip measures the same over UDP.
func udpRoundTrip(ctx context.Context, s *sample) error {
	return s.roundTrips(ctx, "udp-rtt", traffic.EchoDatagrams, s.udp)
}

// beside runs something beside a download on a connection of its own, and returns
// how many bytes a second that moved meanwhile.
func (s *sample) beside(ctx context.Context, rate uint64, warmUp time.Duration, run func() error) (moved float64, err error) {
	a, err := traffic.StartDownload(ctx, s.tcp, 1, rate)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := pause(ctx, warmUp); err != nil {
		return 0, err
	}
	before, started := a.Count(), time.Now()
	err = run()
	return float64(a.Count()-before) / time.Since(started).Seconds(), err
}

// busyRate is the stream beside which round trips are measured, in bytes a
// second: far below what any tunnel here can do. Beside a stream without bounds
// one would measure how the kernel shares out the CPUs.
const busyRate = 50e6

// roundTripBusy measures round trips beside a stream of 50 MB/s.
func roundTripBusy(ctx context.Context, s *sample) error {
	rate, err := s.beside(ctx, busyRate, s.warmUp(), func() error {
		return s.roundTrips(ctx, "rtt-busy", traffic.Echo, s.tcp)
	})
	if err == nil && rate < 0.8*busyRate {
		err = fmt.Errorf("%w: the stream beside it moved %.0f MB/s, not %.0f", errUnfit, rate/1e6, busyRate/1e6)
	}
	return err
}

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
	return s.besideTransfer(ctx, "uplink-tcp", traffic.Echo, s.tcp)
}

// uplinkUDP measures the same over UDP.
func uplinkUDP(ctx context.Context, s *sample) error {
	return s.besideTransfer(ctx, "uplink-udp", traffic.EchoDatagrams, s.udp)
}

func (s *sample) besideTransfer(ctx context.Context, name string, echo echo, addr string) (err error) {
	if err := shapeUplink(ctx, s.uplink); err != nil {
		return err
	}
	// What is measured next on this loopback must not pass the uplink.
	defer func() { err = errors.Join(err, shapeUplink(context.WithoutCancel(ctx), nil)) }()
	moved, err := s.beside(ctx, 0, s.atLeast(uplinkFill), func() error {
		return s.kept(ctx, func() error {
			times, err := echo(ctx, addr, s.atLeast(uplinkLeast), uplinkGap)
			s.quantiles(name, times, time.Millisecond)
			return err
		})
	})
	s.values["uplink-rate"] = moved * 8 / 1e6
	return err
}

const (
	loadFlows  = 16
	loadWindow = 16
	// offeredRate is in datagrams a second.
	offeredRate = 20_000
)

// udpLoad measures how many datagrams come back when 256 are always in flight.
func udpLoad(ctx context.Context, s *sample) error {
	a, err := traffic.StartLoad(ctx, s.udp, loadFlows, loadWindow)
	if err != nil {
		return err
	}
	if err := s.counted(ctx, a, "udp-load", 1, 1e6); err != nil {
		return err
	}
	s.values["udp-load-lost"] = 100 * float64(a.Lost()) / float64(a.Count()+a.Lost())
	return nil
}

// udpFlows counts the players who are answered when so many come at once.
func udpFlows(ctx context.Context, s *sample) error {
	all := true
	_, err := s.measured(func() error {
		for _, n := range s.Flows {
			answered, err := traffic.Flows(ctx, s.udp, n)
			if err != nil {
				return fmt.Errorf("%d flows: %w", n, err)
			}
			s.values[fmt.Sprint(udpFlowsPrefix, n)] = float64(answered)
			all = all && answered == n
		}
		return nil
	})
	if all {
		s.foreign = 0 // Whatever else ran, it did no harm.
	}
	return err
}

// udpOffered measures what becomes of datagrams that come at a fixed rate.
func udpOffered(ctx context.Context, s *sample) (err error) {
	f, err := traffic.OpenOffer(ctx, s.udp, loadFlows, traffic.LoadSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Run(ctx, offeredRate, s.warmUp()); err != nil {
		return err
	}
	return s.kept(ctx, func() error {
		o, err := s.offer(ctx, f, offeredRate, s.Duration)
		if err != nil {
			return err
		}
		s.values["udp-offered-lost"] = 100 * float64(o.Lost) / float64(o.Sent)
		if len(o.Times) > 0 { // Of nothing there is no median.
			s.quantiles("udp-offered", o.Times, time.Microsecond)
		}
		return nil
	})
}

// offer is f.Run, unless the machine was too busy for the rate.
func (s *sample) offer(ctx context.Context, f *traffic.Offer, rate int, d time.Duration) (traffic.Offered, error) {
	o, err := f.Run(ctx, rate, d)
	if want := int(0.95 * float64(rate) * d.Seconds()); err == nil && !s.Brief && o.Sent < want {
		err = fmt.Errorf("%w: %d datagrams were sent, not %d", errUnfit, o.Sent, want)
	}
	return o, err
}

const (
	// lossFlows are players of a game that sends lossRate datagrams a second each.
	lossFlows = 8
	lossRate  = 50
	// lossSettle is how long they play before anything is measured: a tunnel with
	// several transports has found the best of them.
	lossSettle = 2 * time.Second
	// lossLeast is the least duration at each loss, all turns together: 2,400
	// datagrams, of which 24 make the 99th percentile.
	lossLeast = 6 * time.Second
	// lossTurns is how often each loss has its turn: what else changes over seconds
	// changes for all of them.
	lossTurns = 3
)

// lossUDP measures the round trips of games while the link loses packets at
// random, in each direction, and compares them with those while it loses none.
func lossUDP(ctx context.Context, s *sample) (err error) {
	f, err := traffic.OpenOffer(ctx, s.udp, lossFlows, cmp.Or(s.LossSize, traffic.LoadSize))
	if err != nil {
		return err
	}
	defer func() {
		// A sample that was given up must not leave its loss to the next.
		err = errors.Join(err, f.Close(), s.cable.lose(context.WithoutCancel(ctx), s.uplink, 0))
	}()
	if _, err := f.Run(ctx, lossFlows*lossRate, s.atLeast(lossSettle)); err != nil {
		return err
	}
	played := make(map[int]traffic.Offered)
	// The CPUs are not kept awake: what does that now and then has a CPU for some
	// milliseconds where a datagram has come meanwhile, which for datagrams at a
	// fixed pace is about as many as the hundredth that counts.
	if _, err := s.measured(func() error {
		for turn := range lossTurns * len(losses) {
			percent := losses[turn%len(losses)]
			if err := s.cable.lose(ctx, s.uplink, percent*10); err != nil {
				return err
			}
			o, err := s.offer(ctx, f, lossFlows*lossRate, s.atLeast(lossLeast)/lossTurns)
			if err != nil {
				return err
			}
			sum := played[percent]
			played[percent] = traffic.Offered{Sent: sum.Sent + o.Sent, Lost: sum.Lost + o.Lost, Times: append(sum.Times, o.Times...)}
		}
		return nil
	}); err != nil {
		return err
	}
	for percent, o := range played {
		if len(o.Times) == 0 {
			return errors.New("nothing comes back")
		}
		s.values[lossMetric(percent, "answered")] = 100 * float64(o.Sent-o.Lost) / float64(o.Sent)
		s.quantiles(fmt.Sprintf("loss-udp-%d", percent), o.Times, time.Microsecond)
		if percent > 0 {
			s.values[lossMetric(percent, "ratio")] = float64(quantile(o.Times, 0.99)) / float64(quantile(played[0].Times, 0.99))
		}
	}
	return nil
}
