package server

import (
	"context"
	"log/slog"
	"time"
)

const (
	// lapseInterval is the pause between two looks for replicas whose leases have expired: so long, at most, their
	// devices are offline before anybody is told.
	lapseInterval = time.Second
	// pruneEventsInterval is the pause between two times that the log of events is pruned.
	pruneEventsInterval = 30 * time.Second
)

// keepEvents keeps the log of events complete and short until ctx ends. Every replica does so.
func (s *Server) keepEvents(ctx context.Context) error {
	lapses, prune := time.NewTicker(lapseInterval), time.NewTicker(pruneEventsInterval)
	defer lapses.Stop()
	defer prune.Stop()
	failed := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-lapses.C:
			err = s.db.RecordLapses(ctx)
		case <-prune.C:
			err = s.pruneEvents(ctx)
		}
		if err != nil && !failed && ctx.Err() == nil { // Once for each outage.
			s.logger.WarnContext(ctx, "log of events was not kept; it is retried", slog.Any("error", err))
		}
		failed = err != nil
	}
}

// pruneEvents deletes what the log of events need not have any more.
func (s *Server) pruneEvents(ctx context.Context) error {
	for {
		more, err := s.db.PruneEvents(ctx)
		if err != nil || !more {
			return err
		}
	}
}
