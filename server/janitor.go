package server

import (
	"context"
	"log/slog"
	"time"
)

const (
	sweepInterval = 5 * time.Minute
	// expiredRetention keeps the row of an enrollment that was not approved for a
	// while, so that its agent is told "expired" rather than "unknown".
	expiredRetention = time.Hour
)

// sweep deletes expired enrollments, sessions and rate limits, until ctx ends. Every replica does it: the
// second finds nothing left.
func (s *Server) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		n, err := s.db.DeleteExpiredDevices(ctx, now.Add(-expiredRetention))
		if err == nil {
			err = s.db.DeleteExpired(ctx, now)
		}
		if err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "what has expired is not deleted yet", slog.Any("error", err))
		}
		if n > 0 {
			s.logger.InfoContext(ctx, "expired enrollments deleted", slog.Int64("count", n))
		}
	}
}
