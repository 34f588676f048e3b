package channel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"
)

// FinalError is an end after which a device must not come back by itself. A
// Dial given to Keep returns one for a refusal of the same meaning.
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

// Backoff is exponential back-off with full jitter: the n-th wait is uniform
// between 0 and Min doubled n times, at most Max.
type Backoff struct {
	Min, Max time.Duration  // 0: 250 ms and 4 s.
	Rand     func() float64 // Uniform in [0,1); nil: math/rand/v2.

	failures int
}

// Next returns the wait before the next try and counts it.
func (b *Backoff) Next() time.Duration {
	lo, hi, random := b.Min, b.Max, b.Rand
	if lo == 0 {
		lo = 250 * time.Millisecond
	}
	if hi == 0 {
		// With the time that a try takes to begin and fail, whoever is away is
		// back within 5 s of the return of what was missing.
		hi = 4 * time.Second
	}
	if random == nil {
		random = rand.Float64
	}
	ceiling := hi
	if shift := b.failures; shift < 32 && lo<<shift < hi && lo<<shift > 0 {
		ceiling = lo << shift
	}
	b.failures++
	return time.Duration(random() * float64(ceiling))
}

// Wait waits before the next try and counts it. Its only error is that of ctx, when
// that ends first.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.failures = 0 }

// KeepOptions say what to keep open.
type KeepOptions struct {
	// Dial opens the WebSocket. A *FinalError ends Keep.
	Dial func(ctx context.Context) (*websocket.Conn, error)
	// Serve uses the channel until it ends and returns why. It reads until an
	// error and need not close or wait: Keep does. It calls ready once the peer
	// has shown that it accepts this end, which resets the back-off.
	Serve func(ctx context.Context, c *Conn, ready func()) error
	// Ended hears of every end, of a channel or of a try to open one, and of
	// the wait that follows. May be nil.
	Ended func(err error, wait time.Duration)
	// Wake cuts a wait short and resets the back-off: what made the last tries
	// fail may have changed. May be nil.
	Wake    <-chan struct{}
	Backoff Backoff
	Channel Options
}

// Keep holds a channel open until ctx ends, when it returns nil, or until the
// peer ends it for good, when it returns a *FinalError. When ctx ends the peer
// is told with a close frame of code 1001.
func Keep(ctx context.Context, o KeepOptions) error {
	backoff := o.Backoff
	for {
		err := o.once(ctx, &backoff)
		if ctx.Err() != nil {
			return nil
		}
		if final := final(err); final != nil {
			return final
		}
		wait := backoff.Next()
		if o.Ended != nil {
			o.Ended(err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.Wake:
			backoff.Reset()
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (o *KeepOptions) once(ctx context.Context, backoff *Backoff) error {
	ws, err := o.Dial(ctx)
	if err != nil {
		return err
	}
	c := New(ws, o.Channel)
	// A WebSocket read knows no context.
	stop := context.AfterFunc(ctx, func() { c.Close(websocket.CloseGoingAway, "stopping") })
	defer stop()
	err = o.Serve(ctx, c, backoff.Reset)
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
