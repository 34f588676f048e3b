package control

import (
	"context"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// drainInterval is how often drains are advanced.
const drainInterval = time.Second

// advanceDrains advances the drains of tunnel servers until ctx ends. Every replica
// does so: row locks keep them apart, and one completes what another leaves undone.
func (h *Hub) advanceDrains(ctx context.Context) {
	ctx = db.WithActor(ctx, db.Actor{Kind: db.ActorPanel}) // Of moves, in the audit trail.
	ticks, stop := h.opts.Every(drainInterval)
	defer stop()
	failing := false
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
		more, err := true, error(nil)
		for more && err == nil {
			more, err = h.opts.Store.AdvanceDrains(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			h.opts.Logger.WarnContext(ctx, "drains not advanced yet", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// save stores a device's reports.
func (s *session) save(ctx context.Context, u reportBatch) error {
	store := s.hub.opts.Store
	if len(u.rows) > 0 {
		if err := store.SaveReports(ctx, s.device, string(s.kind), u.rows); err != nil {
			return err
		}
	}
	if s.kind != types.DeviceKindServer {
		return nil // Only tunnel servers report the rest.
	}
	// Store players before drained ports, so that a drained tunnel server is never
	// shown with players.
	if u.players != nil {
		if err := store.SavePlayers(ctx, s.device, *u.players); err != nil {
			return err
		}
	}
	if len(u.drained) > 0 {
		if err := store.SaveDrained(ctx, s.device, u.drained); err != nil {
			return err
		}
	}
	if len(u.refusals) == 0 {
		return nil
	}
	// Refusals come last: after an error everything is stored again, and they would count twice.
	return store.AddRefusals(ctx, s.device, u.refusals)
}
