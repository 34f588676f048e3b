package control

import (
	"context"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// drainInterval is how often what draining has come to is looked for: limits end
// and allocations move within it.
const drainInterval = time.Second

// advanceDrains does, now and again, what draining has come to. Every replica does:
// the database keeps them apart, and what one leaves undone another does.
func (h *Hub) advanceDrains(ctx context.Context) {
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
			h.opts.Logger.WarnContext(ctx, "drains not tended yet", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// save writes what a device has reported.
func (s *session) save(ctx context.Context, u unsaved) error {
	store := s.hub.opts.Store
	if len(u.rows) > 0 {
		if err := store.SaveReports(ctx, s.device, string(s.kind), u.rows); err != nil {
			return err
		}
	}
	if s.kind != types.DeviceKindServer {
		return nil // The rest is a tunnel server's to say.
	}
	// Players before what has drained with them: a tunnel server on which nobody
	// is left has no players.
	if u.players != nil {
		if err := store.SavePlayers(ctx, s.device, *u.players); err != nil {
			return err
		}
	}
	if len(u.drained) == 0 {
		return nil
	}
	return store.SaveDrained(ctx, s.device, u.drained)
}
