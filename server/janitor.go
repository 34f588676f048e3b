package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	sweepInterval = 5 * time.Minute
	// sweepTimeout is enough to delete what expires on a busy panel.
	sweepTimeout = time.Minute
	// expiredRetention is how long the row of an expired enrollment is kept, so that
	// its agent is told "expired" rather than "unknown".
	expiredRetention = time.Hour
)

// sweep deletes expired rows, old usage, and old entries of the audit trail and of idempotency keys, rotates signing
// keys and reads from where people log in, at once and then every sweepInterval until ctx ends. Every replica does so,
// one at a time where db.DB.Maintain is called.
func (s *Server) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "maintenance of the database failed; it is retried later", slog.Any("error", err))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) maintain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(asPanel(ctx), sweepTimeout)
	defer cancel()
	next, err := auth.NewKey()
	if err != nil {
		return err
	}
	now := time.Now()
	done, _, err := s.db.Maintain(ctx, db.Maintenance{
		EnrollmentsBefore: now.Add(-expiredRetention),
		ExpiredBefore:     now,
		Keys:              db.KeyRotation{Every: max(0, s.opts.KeyRotation), Candidate: next},
	})
	if err != nil {
		return err
	}
	if done.Enrollments > 0 {
		s.logger.InfoContext(ctx, "expired enrollments deleted", slog.Int64("count", done.Enrollments))
	}
	for _, key := range done.Keys.Created {
		s.logger.InfoContext(ctx, "signing key created; it signs from tomorrow on", slog.String("keyId", key))
	}
	for _, key := range done.Keys.Retired {
		s.logger.InfoContext(ctx, "signing key retired", slog.String("keyId", key))
	}
	for _, key := range done.Keys.Deleted {
		s.logger.InfoContext(ctx, "signing key deleted", slog.String("keyId", key))
	}
	return errors.Join(s.pruneAudit(ctx, now), s.pruneUsage(ctx, now), s.pruneIdempotencyKeys(ctx), s.auth.LoadPlaces(ctx))
}

// pruneRounds bounds how many entries of the audit trail a sweep deletes, to one batch for
// each. What is left goes with the next sweeps.
const pruneRounds = 20

// pruneAudit deletes entries of the audit trail that have been kept for long enough.
func (s *Server) pruneAudit(ctx context.Context, now time.Time) error {
	if s.opts.AuditRetention < 0 {
		return nil
	}
	for range pruneRounds {
		deleted, err := s.db.PruneAudit(ctx, now.Add(-s.opts.AuditRetention))
		if err != nil || deleted == 0 {
			return err
		}
	}
	return nil
}

// pruneIdempotencyKeys deletes the keys of requests that are not remembered any more.
func (s *Server) pruneIdempotencyKeys(ctx context.Context) error {
	for range pruneRounds {
		deleted, err := s.db.PruneIdempotencyKeys(ctx)
		if err != nil || deleted == 0 {
			return err
		}
	}
	return nil
}

// pruneUsage deletes usage that has been kept for long enough, and, a few thousand with each sweep, what only that
// needed.
func (s *Server) pruneUsage(ctx context.Context, now time.Time) error {
	for range pruneRounds {
		deleted, err := s.db.PruneUsage(ctx, now)
		if err != nil {
			return err
		}
		if deleted == 0 {
			break
		}
	}
	var err error
	s.usageSubject, err = s.db.PruneUsageSubjects(ctx, s.usageSubject)
	return err
}

// asPanel returns a context whose changes are those of the panel itself.
func asPanel(ctx context.Context) context.Context {
	return db.WithActor(ctx, db.Actor{Kind: db.ActorPanel})
}

// AsCommand returns a context whose changes are those of a command that a user of the
// operating system runs, for the audit trail.
func AsCommand(ctx context.Context, user string) context.Context {
	return db.WithActor(ctx, db.Actor{Kind: db.ActorCommand, ID: user, Name: user, Admin: true})
}
