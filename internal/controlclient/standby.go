package controlclient

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// Standby says what a device does after another process of it took over: it serves
// nothing, and comes back once the other has been gone for a while.
type Standby struct {
	// Presence asks the panel about the device. A *channel.FinalError ends Run, any
	// other error says nothing. nil: a takeover ends Run with a *channel.FinalError.
	Presence func(ctx context.Context) (Presence, error)
	// Begin is called, in place of OnChannel, when the device begins to stand by, with
	// the reason. It closes what the device serves; the next snapshot brings it back.
	// Required with Presence.
	Begin func(reason string)
	StandbyTimes
}

// StandbyTimes are those of the contract, and others in tests.
type StandbyTimes struct {
	// Poll is the mean time between two questions, which varies by a third; 0: 15 s.
	Poll time.Duration
	// Grace is how long the other process must have been gone: its restart takes less;
	// 0: 1 min.
	Grace time.Duration
}

// Presence is whether the panel has a connection of the device, and when it last
// had one.
type Presence struct {
	Online   bool
	LastSeen time.Time
}

// isTakeover reports whether an error of channel.Keep says that another process took
// over, and why.
func isTakeover(err error) (reason string, ok bool) {
	var final *channel.FinalError
	if !errors.As(err, &final) || final.Code != channel.CloseTakenOver {
		return "", false
	}
	return final.Reason, true
}

// Run keeps a control channel until ctx ends, when it returns nil, or until the
// panel ends it for good, when it returns a *channel.FinalError. While another process
// of the device is connected, it stands by.
func (c *Client[State, S, C]) Run(ctx context.Context) error {
	for {
		err := c.keep(ctx)
		reason, takenOver := isTakeover(err)
		if !takenOver || c.opts.Standby.Presence == nil {
			return err
		}
		if !c.returning { // Otherwise nothing has been served since.
			c.opts.Standby.Begin(reason)
		}
		if err := c.awaitAbsence(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		c.returning = true
	}
}

// StandBy ends the channel, and the attempts to open one, as if the panel had said
// that another process of the device took over. It does nothing unless Run keeps a
// channel.
func (c *Client[State, S, C]) StandBy(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leave != nil {
		c.leave(&channel.FinalError{Code: channel.CloseTakenOver, Reason: reason})
	}
}

// keep keeps a control channel until ctx ends, StandBy is called or the panel ends it
// for good.
func (c *Client[State, S, C]) keep(ctx context.Context) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	c.setLeave(leave)
	defer c.setLeave(nil)
	err := channel.Keep(ctx, channel.KeepOptions{
		Dial:    c.opts.Dial,
		Serve:   c.serve,
		Ended:   c.ended,
		Backoff: c.opts.Backoff,
		Channel: c.opts.Channel,
	})
	if cause := context.Cause(ctx); err == nil {
		if _, takenOver := isTakeover(cause); takenOver {
			return cause
		}
	}
	return err
}

func (c *Client[State, S, C]) setLeave(leave context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave = leave
}

// awaitAbsence returns nil once the other process has been gone for the grace, or ctx
// has ended. An answer counts only if the panel gave it: while it cannot be asked, or
// its own devices are still on their way back, the other process may be serving. An
// error is a *channel.FinalError.
func (c *Client[State, S, C]) awaitAbsence(ctx context.Context) error {
	poll := cmp.Or(c.opts.Standby.Poll, 15*time.Second)
	grace := cmp.Or(c.opts.Standby.Grace, time.Minute)
	var since time.Time // Of the first of the answers in a row that show it as gone.
	var last Presence
	for {
		wait := time.Duration((2 + 2*rand.Float64()) / 3 * float64(poll))
		if !since.IsZero() {
			wait = min(wait, max(0, time.Until(since.Add(grace))))
		}
		if !sleep(ctx, wait) {
			return nil
		}
		now, err := c.opts.Standby.Presence(ctx)
		var final *channel.FinalError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &final):
			return final
		case err != nil:
			c.opts.Logger.Debug("the panel cannot say whether the other process is connected", slog.Any("error", err))
			if channel.IsFeatureOff(err) {
				c.opts.SwitchedOff()
			}
			since = time.Time{}
		case now.Online:
			since = time.Time{}
		case since.IsZero() || !now.LastSeen.Equal(last.LastSeen):
			since = time.Now() // It may have been back in between.
		case time.Since(since) >= grace:
			return nil
		}
		last = now
	}
}

// sleep waits for d and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
