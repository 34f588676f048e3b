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
	// lossFlows are players of a game that sends lossRate datagrams a second each.
	lossFlows = 8
	lossRate  = 50
	// lossSettle is how long they play before anything is measured: a tunnel that
	// knows several ways has found the best of them.
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
	f, err := player.OpenOffer(ctx, s.subject.UDP, lossFlows)
	if err != nil {
		return err
	}
	defer func() {
		// A sample that was given up must not leave its loss to the next.
		err = errors.Join(err, f.Close(), s.Cable.Lose(context.WithoutCancel(ctx), s.subject.Uplink, 0))
	}()
	if _, err := f.Run(ctx, lossFlows*lossRate, s.atLeast(lossSettle)); err != nil {
		return err
	}
	played := make(map[int]*player.Offered)
	// The CPUs are not kept awake: what does that now and then has a CPU for some
	// milliseconds where a datagram has come meanwhile, which for datagrams at a
	// fixed pace is about as many as the hundredth that counts.
	if _, err := s.measured(func() error {
		for turn := range lossTurns * len(report.Losses) {
			percent := report.Losses[turn%len(report.Losses)]
			if err := s.playWithLoss(ctx, f, percent, played); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for percent, o := range played {
		if len(o.Times) == 0 {
			return errors.New("nothing comes back")
		}
		m := report.Loss(percent)
		s.values[m.Answered] = 100 * float64(o.Sent-o.Lost) / float64(o.Sent)
		s.quantiles(o.Times, m.P50, m.P99, time.Microsecond)
		if percent > 0 {
			base := report.Quantile(played[0].Times, 0.99)
			s.values[m.Ratio] = float64(report.Quantile(o.Times, 0.99)) / float64(base)
		}
	}
	return nil
}

// playWithLoss plays for a turn and adds what became of it.
func (s *sample) playWithLoss(ctx context.Context, f *player.Offer, percent int, played map[int]*player.Offered) error {
	if err := s.Cable.Lose(ctx, s.subject.Uplink, percent*10); err != nil {
		return err
	}
	o, err := s.offer(ctx, f, lossFlows*lossRate, s.atLeast(lossLeast)/lossTurns)
	if err != nil {
		return err
	}
	sum := played[percent]
	if sum == nil {
		sum = new(player.Offered)
		played[percent] = sum
	}
	sum.Sent, sum.Lost, sum.Times = sum.Sent+o.Sent, sum.Lost+o.Lost, append(sum.Times, o.Times...)
	return nil
}
