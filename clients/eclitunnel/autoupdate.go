package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/update"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	updateTick = time.Minute
	// updateTicks is the time between two looks at the panel, in ticks, half of it and half
	// as much again at random; and updateSpread the most that agents wait after a panel has
	// come back in another version, so that they do not all download at once.
	updateTicks  = 16 * 60
	updateSpread = 30

	// An update waits until there has been no player for idleTicks, at most idleLimit of
	// them: a game that always has players gets its update too.
	idleTick  = 10 * time.Second
	idleTicks = 6
	idleLimit = int(24 * time.Hour / idleTick)

	// A new program has trialTicks to reach the panel, in up to trialStarts starts.
	trialTick   = time.Second
	trialTicks  = 120
	trialStarts = 3
)

// restartError is the end of a run whose program was replaced.
type restartError struct{ reason string }

func (e *restartError) Error() string { return e.reason }

// autoUpdate keeps the program of a run up to date. nil does nothing.
type autoUpdate struct {
	app     *app
	client  *tunnel.Client
	key     update.Key
	path    string
	log     *slog.Logger
	players func() int // Those of now.

	connected atomic.Bool
	wake      chan struct{} // Holds one signal: the panel is connected.
	panel     string        // The version of the panel when it was last looked at.
}

// newAutoUpdate returns nil where --auto-update is not set, or has no effect.
func (r *running) newAutoUpdate() (*autoUpdate, error) {
	if !r.AutoUpdate {
		return nil, nil
	}
	if r.kind != types.DeviceKindClient {
		return nil, usagef("--auto-update is not for a tunnel server, which others' players use: drain it on the panel, then run eclitunnel update")
	}
	key, err := update.ParseKey(releaseKey)
	if err != nil {
		return nil, err
	}
	if !key.Known() {
		return nil, usagef("--auto-update: %w", update.ErrNoKey)
	}
	path, err := r.app.programPath()
	if err == nil {
		err = update.Replaceable(path)
	}
	if err != nil {
		// Players matter more than the update.
		r.log.Warn("the program will not be updated, because it cannot be replaced", slog.Any("error", err))
		return nil, nil
	}
	return &autoUpdate{app: r.app, client: r.client, key: key, path: path, log: r.log, wake: make(chan struct{}, 1)}, nil
}

// watch returns a function for OnEvent that lets the update know of the panel, and calls on.
func (u *autoUpdate) watch(on func(agent.Event)) func(agent.Event) {
	if u == nil {
		return on
	}
	return func(e agent.Event) {
		if e.Type == agent.EventConnected {
			u.connected.Store(true)
			select {
			case u.wake <- struct{}{}:
			default:
			}
		}
		on(e)
	}
}

// serve runs an agent, and ends it with a [*restartError] once the program was replaced.
func (u *autoUpdate) serve(ctx context.Context, served *agent.Agent) error {
	if u == nil {
		return served.Run(ctx)
	}
	u.players = func() int {
		n := 0
		for _, p := range served.Snapshot().Tunnels {
			n += p.Players
		}
		return n
	}
	ctx, stop := context.WithCancel(ctx)
	replaced := make(chan error, 1)
	go func() {
		defer stop()
		replaced <- u.run(ctx)
	}()
	err := served.Run(ctx)
	stop()
	return errors.Join(<-replaced, err)
}

// run returns nil when ctx has ended, and a [*restartError] after the program was replaced.
func (u *autoUpdate) run(ctx context.Context) error {
	if err := u.trial(ctx); err != nil {
		return err
	}
	for due, soon := nextUpdate(), -1; ; due-- {
		if u.app.wait(ctx, updateTick) != nil {
			return nil
		}
		select {
		case <-u.wake:
			if soon < 0 {
				soon = rand.IntN(updateSpread)
			}
		default:
		}
		look := due <= 0
		if soon >= 0 {
			look = look || soon == 0 && u.panelChanged(ctx)
			soon--
		}
		if !look {
			continue
		}
		due = nextUpdate()
		err := u.update(ctx)
		var replaced *restartError
		switch {
		case errors.As(err, &replaced):
			return err
		case err != nil && ctx.Err() == nil:
			u.panel = "" // Look again when it is connected again.
			u.log.Warn("the program was not updated", slog.Any("error", err))
		}
	}
}

// nextUpdate returns the ticks until the next look at the panel.
func nextUpdate() int { return updateTicks/2 + rand.IntN(updateTicks) }

// panelChanged reports whether the panel is of another version than at the last look.
func (u *autoUpdate) panelChanged(ctx context.Context) bool {
	v, err := u.client.Version(ctx)
	if err != nil || v.Version == u.panel {
		return false
	}
	u.panel = v.Version
	return true
}

// update replaces the program if the panel has a newer one, as soon as nobody plays.
func (u *autoUpdate) update(ctx context.Context) error {
	release, err := update.Find(ctx, u.client.Download, update.Query{Key: u.key})
	if err != nil || !update.Comparable(version) || !update.Newer(release.Version, version) {
		return err
	}
	if last := update.ReadTrial(u.path); last.Failed && last.Version == release.Version {
		return nil // It was said then.
	}
	u.log.Info("a newer agent is available; it is installed when nobody plays", slog.String("version", release.Version))
	if err := u.idle(ctx); err != nil {
		return err
	}
	fetched, err := release.Fetch(ctx, u.client.Download, u.path)
	if err != nil {
		return err
	}
	// First: without the record, nothing would go back to this program.
	err = update.Trial{Version: release.Version}.Save(u.path)
	if err == nil {
		err = update.Install(fetched, u.path)
	}
	if err != nil {
		return errors.Join(err, update.EndTrial(u.path), removeFetched(fetched))
	}
	return &restartError{fmt.Sprintf("the agent is version %s now; the service manager starts it again", release.Version)}
}

// removeFetched removes a program that was not installed.
func removeFetched(fetched string) error {
	if err := os.Remove(fetched); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// idle waits until nobody has played for a while, or it has waited for long.
func (u *autoUpdate) idle(ctx context.Context) error {
	for waited, quiet := 0, 0; quiet < idleTicks && waited < idleLimit; waited++ {
		if err := u.app.wait(ctx, idleTick); err != nil {
			return err
		}
		quiet++
		if u.players() > 0 {
			quiet = 0
		}
	}
	return nil
}

// trial goes back to the program before, if this one is new and does not reach the panel.
func (u *autoUpdate) trial(ctx context.Context) error {
	t := update.ReadTrial(u.path)
	if t.Version != version || t.Failed {
		return nil
	}
	t.Starts++
	if err := t.Save(u.path); err != nil {
		u.log.Warn("the starts of the new program are not counted", slog.Any("error", err))
	}
	for range trialTicks {
		if u.connected.Load() {
			if err := update.EndTrial(u.path); err != nil {
				u.log.Warn("the trial of the new program has no end", slog.Any("error", err))
			}
			return nil
		}
		if t.Starts > trialStarts {
			break
		}
		if u.app.wait(ctx, trialTick) != nil {
			return nil
		}
	}
	t.Failed = true
	if err := errors.Join(t.Save(u.path), update.Swap(u.path)); err != nil {
		u.log.Warn("the new program does not reach the panel, and the one before cannot be put back", slog.Any("error", err))
		return nil
	}
	return &restartError{fmt.Sprintf("version %s of the agent does not reach the panel, so the one before is back; the service manager starts it", version)}
}
