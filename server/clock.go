package server

import (
	"context"
	"log/slog"
	"time"
)

const (
	clockInterval = 10 * time.Second
	// clockStep is the least step of the clock that is logged; time synchronisation that
	// slews the clock stays below it.
	clockStep = 2 * time.Second
)

// watchClock logs once each time that the system's clock was stepped: the ends of
// sessions and enrollments, and the times that people see, depend on it. Device tokens
// do not.
func (s *Server) watchClock(ctx context.Context) error {
	start := time.Now()
	var watch clockWatch
	ticker := time.NewTicker(clockInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		// Round strips the monotonic reading, so that the first difference is of the wall
		// clock and the second of the monotonic one.
		if step := watch.observe(now.Round(0).Sub(start.Round(0)), now.Sub(start)); step != 0 {
			s.logger.WarnContext(ctx, "the system's clock was stepped, or the machine was suspended", slog.Duration("by", step))
		}
	}
}

// clockWatch finds steps of a clock.
type clockWatch struct {
	offset time.Duration // Of the wall clock from the monotonic one, as last observed.
}

// observe takes the time that has passed by the wall clock and by the monotonic clock. It
// returns by how much the wall clock was stepped since the call before, or 0.
func (c *clockWatch) observe(wall, monotonic time.Duration) (step time.Duration) {
	offset := wall - monotonic
	step = offset - c.offset
	c.offset = offset
	if step.Abs() < clockStep {
		return 0
	}
	return step
}
