//go:build linux

package measure

import (
	"context"
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/player"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
)

// collected is how long it takes a Go program that does nothing to give back
// what it does not need: the runtime collects garbage after two minutes at the
// latest, and returns pages to the system from then on.
const collected = 130 * time.Second

// idleMemory measures by how much the tunnel's processes grow with players who
// are connected and silent: between a quarter of them and all of them, for what
// the first players bring into being is no price of each, and both times after
// garbage has been collected, for a program that has just started has some that
// has nothing to do with players and would be taken for theirs.
func idleMemory(ctx context.Context, s *sample) (err error) {
	if len(s.subject.PIDs) == 0 {
		return nil
	}
	var crowds []*player.Crowd
	defer func() {
		for _, crowd := range crowds {
			err = errors.Join(err, crowd.Close())
		}
	}()
	first := s.Idle / 4
	var sizes []int64
	for _, n := range []int{first, s.Idle - first} {
		crowd, err := player.Gather(ctx, s.subject.TCP, n)
		if err != nil {
			return err
		}
		crowds = append(crowds, crowd)
		if err := pause(ctx, s.atLeast(collected)); err != nil {
			return err
		}
		size, err := machine.Memory(s.subject.PIDs)
		if err != nil {
			return err
		}
		sizes = append(sizes, size)
	}
	for _, crowd := range crowds {
		if err := crowd.Verify(); err != nil {
			return err
		}
	}
	s.values[report.IdleMemory] = float64(sizes[1]-sizes[0]) / 1e3 / float64(s.Idle-first)
	return nil
}
