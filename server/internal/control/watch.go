package control

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// start is the part of Start that can fail. It listens before it reads, so that it
// misses no change.
func (h *Hub) start(ctx context.Context) error {
	if err := h.opts.Store.RenewLease(ctx, h.replica, lease); err != nil {
		return fmt.Errorf("claim the replica's lease: %w", err)
	}
	events, err := h.opts.Store.Listen(ctx)
	if err != nil {
		return fmt.Errorf("listen for changes: %w", err)
	}
	if err := h.readAll(ctx); err != nil {
		h.stop()
		for range events { // Wait for the listener to end.
		}
		return err
	}
	h.background.Go(func() { h.watch(ctx, events) })
	h.background.Go(func() { h.keepLease(ctx) })
	h.background.Go(func() { h.renewTickets(ctx) })
	h.background.Go(func() { h.advanceDrains(ctx) })
	return nil
}

// watch wakes the channels that events concern until events ends.
func (h *Hub) watch(ctx context.Context, events <-chan db.Event) {
	var retry backoff.Exponential
	var again <-chan time.Time
	keys, all := false, false // What has to be read.
	for {
		select {
		case event, ok := <-events:
			switch {
			case !ok:
				return
			case event.All:
				keys, all = true, true
				// Events were missed, and writes of this replica may have failed too.
				h.reconcile.Store(true)
			case event.Keys:
				keys = true
			case event.Servers:
				h.serversChanged()
				continue
			default:
				h.changed(event.DeviceID)
				continue
			}
		case <-again:
		}
		again = nil
		if err := h.reload(ctx, &keys, &all); err != nil {
			if ctx.Err() == nil {
				h.opts.Logger.WarnContext(ctx, "keys, settings and devices not reloaded yet", slog.Any("error", err))
			}
			again = time.After(retry.Next())
			continue
		}
		retry.Reset()
	}
}

// reload reads the keys or everything, as requested, and clears what is done.
func (h *Hub) reload(ctx context.Context, keys, all *bool) error {
	if *keys {
		// Keys come first, because the states read afterwards carry tickets.
		if err := h.readKeys(ctx); err != nil {
			return err
		}
		*keys = false
	}
	if *all {
		if err := h.readAll(ctx); err != nil {
			return err
		}
		*all = false
	}
	return nil
}

// readKeys reloads the signing keys. It causes tunnel servers to receive the new keys
// and, if any were revoked, tunnel clients to receive new tickets.
func (h *Hub) readKeys(ctx context.Context) error {
	revoked, err := h.opts.ReloadKeys(ctx)
	if err != nil {
		return fmt.Errorf("read signing keys: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.current {
		if s.kind == types.DeviceKindServer {
			s.request(work{state: true})
		} else if revoked {
			s.request(work{tickets: true})
		}
	}
	return nil
}

// serversChanged makes the channels of all tunnel servers read the database.
func (h *Hub) serversChanged() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.current {
		if s.kind == types.DeviceKindServer {
			s.request(work{state: true})
		}
	}
}

// changed makes the device's channel, if it is on this replica, read the database.
func (h *Hub) changed(device uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.current[device]; s != nil {
		s.request(work{row: true, state: true})
	}
}

// readAll applies the settings and makes every channel read the database.
func (h *Hub) readAll(ctx context.Context) error {
	settings, err := h.opts.Store.Settings(ctx)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	sessions := h.setFeature(settings.TunnelsEnabled)
	// In batches: one query for each of thousands of channels would leave revoked
	// tokens usable for too long.
	for part := range slices.Chunk(sessions, batch) {
		ids := make([]uuid.UUID, len(part))
		for i, s := range part {
			ids[i] = s.device
		}
		rows, err := h.opts.Store.Channels(ctx, ids)
		if err != nil {
			return fmt.Errorf("read devices: %w", err)
		}
		for _, s := range part {
			if s.checkAgainst(rows) {
				s.request(work{state: true})
			}
		}
	}
	return nil
}

// setFeature switches tunnels on or off, and returns the channels that stay open. It
// holds the lock of register, so that it misses no channel.
func (h *Hub) setFeature(on bool) []*session {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off = !on
	sessions := slices.Collect(maps.Values(h.current))
	if on {
		return sessions
	}
	for _, s := range sessions {
		s.close(channel.CloseFeatureOff, featureOff)
	}
	return nil
}

// keepLease renews the replica's lease until ctx ends. If the database's view of
// presence may be wrong, it reconciles it.
func (h *Hub) keepLease(ctx context.Context) {
	ticks, stop := h.opts.Every(lease / 3)
	defer stop()
	failing := false
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
		err := h.renewLease(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			h.opts.Logger.WarnContext(ctx, "lease not renewed; devices on this replica will be shown as offline", slog.Any("error", err))
		}
		failing = err != nil
	}
}

func (h *Hub) renewLease(ctx context.Context) error {
	// A renewal that hangs must not delay the next one.
	ctx, cancel := context.WithTimeout(ctx, lease/3)
	defer cancel()
	if err := h.opts.Store.RenewLease(ctx, h.replica, lease); err != nil {
		h.reconcile.Store(true)
		return err
	}
	if !h.reconcile.Swap(false) {
		return nil
	}
	connected := func() []uuid.UUID {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Collect(maps.Keys(h.online))
	}
	if err := h.opts.Store.ReconcilePresence(ctx, h.replica, connected); err != nil {
		h.reconcile.Store(true)
		return err
	}
	return nil
}

// renewTickets sends every client new tickets well before the old ones expire.
func (h *Hub) renewTickets(ctx context.Context) {
	ticks, stop := h.opts.Every(ticketRenewal)
	defer stop()
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		for _, s := range h.current {
			// The state includes when tunnel servers were last connected, which
			// determines the key of a ticket.
			s.request(work{state: s.kind == types.DeviceKindClient, tickets: true})
		}
		h.mu.Unlock()
	}
}

// slot acquires a slot of a semaphore and returns the function that releases it.
func slot(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read reads the desired state of a session's device.
func (h *Hub) read(ctx context.Context, s *session) (desired, error) {
	if s.kind == types.DeviceKindClient {
		rows, err := h.opts.Store.ClientState(ctx, s.device)
		if err != nil {
			return nil, fmt.Errorf("read client state: %w", err)
		}
		return newClientState(rows), nil
	}
	release, err := slot(ctx, h.reads)
	if err != nil {
		return nil, err
	}
	defer release()
	rows, err := h.opts.Store.ServerState(ctx, s.device)
	if err != nil {
		return nil, fmt.Errorf("read server state: %w", err)
	}
	return newServerState(rows, h.opts.Keys(), s.keeps), nil
}
