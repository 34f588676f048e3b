package channel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

// FinalError is an end after which a device must not reconnect by itself. The Dial of
// [KeepOptions] returns one for a refusal of the same meaning.
type FinalError struct {
	Code   int // One of CloseTokenDead, CloseDeleted, CloseTakenOver.
	Reason string
}

func (e *FinalError) Error() string {
	return fmt.Sprintf("closed for good: %s (%d)", e.Reason, e.Code)
}

// ErrFeatureOff is what a Dial given to Keep wraps when it was refused because
// tunnels are switched off. Like an end with CloseFeatureOff it is not final.
var ErrFeatureOff = errors.New("channel: tunnels are switched off")

// IsFeatureOff reports whether a channel ended, or was refused, because tunnels
// are switched off.
func IsFeatureOff(err error) bool {
	return errors.Is(err, ErrFeatureOff) || websocket.IsCloseError(err, CloseFeatureOff)
}

// KeepOptions say what to keep open.
type KeepOptions struct {
	// Dial opens the WebSocket. A *FinalError ends Keep.
	Dial func(ctx context.Context) (*websocket.Conn, error)
	// Serve uses the channel until it ends and returns why. It reads until an error;
	// Keep closes the channel and waits. Serve calls ready once the peer has accepted
	// this end, which resets the back-off.
	Serve func(ctx context.Context, c *Conn, ready func()) error
	// Ended is called with every error that ends a channel or an attempt to open one,
	// and the wait that follows. nil: not called.
	Ended func(err error, wait time.Duration)
	// Wake cuts a wait short and resets the back-off: the cause of the last failures
	// may be gone. nil: never.
	Wake    <-chan struct{}
	Backoff backoff.Exponential
	Channel Options
}

// Keep holds a channel open until ctx ends, when it returns nil, or until the
// peer ends it for good, when it returns a *FinalError. When ctx ends the peer
// is told with a close frame of code 1001.
func Keep(ctx context.Context, o KeepOptions) error {
	retry := o.Backoff
	for {
		err := o.once(ctx, &retry)
		if ctx.Err() != nil {
			return nil
		}
		if final := final(err); final != nil {
			return final
		}
		wait := retry.Next()
		if o.Ended != nil {
			o.Ended(err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.Wake:
			retry.Reset()
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (o *KeepOptions) once(ctx context.Context, retry *backoff.Exponential) error {
	ws, err := o.Dial(ctx)
	if err != nil {
		return err
	}
	c := New(ws, o.Channel)
	// A WebSocket read knows no context.
	stop := context.AfterFunc(ctx, func() { c.Close(websocket.CloseGoingAway, "stopping") })
	defer stop()
	err = o.Serve(ctx, c, retry.Reset)
	c.Close(websocket.CloseNormalClosure, "")
	c.Wait()
	return err
}

// final returns the *FinalError that err is or, as a close code, means.
func final(err error) *FinalError {
	var fe *FinalError
	if errors.As(err, &fe) {
		return fe
	}
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		switch ce.Code {
		case CloseTokenDead, CloseDeleted, CloseTakenOver:
			return &FinalError{Code: ce.Code, Reason: ce.Text}
		}
	}
	return nil
}
