package server

import (
	"context"
	"log/slog"
	"time"
)

// keyUsesInterval is how often the uses of API keys are written to the database, for
// people to see. They take one statement.
const keyUsesInterval = time.Second

// recordKeyUses writes the uses of API keys to the database until ctx ends.
func (s *Server) recordKeyUses(ctx context.Context) error {
	ticker := time.NewTicker(keyUsesInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := s.auth.RecordKeyUses(ctx); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "uses of API keys were not recorded", slog.Any("error", err))
		}
	}
}
