// Package batch lets concurrent calls share the work of one: what arrives while a batch
// runs forms the next one. No call waits for others to arrive, so that one which comes
// alone is as fast as without a batch, and the batches grow with the load.
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// ErrClosed is the error of calls after [Batcher.Close].
var ErrClosed = errors.New("batch: closed")

// defaultMax is the default of [Options.Max].
const defaultMax = 256

// Options configures a [Batcher].
type Options[In, Out any] struct {
	// Run serves the calls of a batch, and returns their results in the same order. Its error is
	// that of every call of the batch, and so is a panic. Only one Run is in progress at a time. Its
	// context has no deadline, and ends once the contexts of all callers of the batch have ended.
	// Required.
	Run func(ctx context.Context, calls []In) ([]Out, error)
	// Max is the maximum weight of a batch of several calls; 0 means 256.
	Max int
	// Weight returns the part of Max that a call takes, at least 1. nil means that each takes 1.
	Weight func(call In) int
	// Spreads reports whether an error of Run is also that of the calls which wait for their batch at
	// that time. Without it, calls would wait for one timeout after another. nil means that no error is.
	Spreads func(err error) bool
}

// Batcher collects calls into batches. It is safe for concurrent use.
type Batcher[In, Out any] struct {
	options Options[In, Out]
	running sync.WaitGroup // The goroutine that runs batches, if there is one.

	mu      sync.Mutex
	waiting []*call[In, Out] // In the order of arrival.
	busy    bool             // A goroutine runs batches.
	closed  bool
}

// call is one call of Do.
type call[In, Out any] struct {
	in   In
	done chan struct{} // Closed once out and err are set.
	out  Out
	err  error

	// The following fields are guarded by the Batcher's mutex.
	left  bool            // Its caller's context has ended.
	group *group[In, Out] // The batch that it is part of; nil while it waits.
}

// group is a batch that runs.
type group[In, Out any] struct {
	calls  []*call[In, Out]
	here   int // Number of callers that wait for it; guarded by the Batcher's mutex.
	cancel context.CancelFunc
}

// New returns a Batcher. It panics if options have no Run.
func New[In, Out any](options Options[In, Out]) *Batcher[In, Out] {
	if options.Run == nil {
		panic("batch: Run is required")
	}
	if options.Max == 0 {
		options.Max = defaultMax
	}
	if options.Weight == nil {
		options.Weight = func(In) int { return 1 }
	}
	if options.Spreads == nil {
		options.Spreads = func(error) bool { return false }
	}
	return &Batcher[In, Out]{options: options}
}

// Do makes a call and returns its result. Calls are served in the order of their arrival. If ctx ends
// first, Do returns its error at once: the call is then left out of its batch, or, if that is in
// progress already, may or may not have an effect.
func (b *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	c := &call[In, Out]{in: in, done: make(chan struct{})}
	if err := b.enter(ctx, c); err != nil {
		return c.out, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if b.leave(c) {
			var none Out
			return none, ctx.Err()
		}
		<-c.done
	}
	return c.out, c.err
}

func (b *Batcher[In, Out]) enter(ctx context.Context, c *call[In, Out]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.waiting = append(b.waiting, c)
	if !b.busy {
		b.busy = true
		b.running.Go(b.runAll)
	}
	return nil
}

// leave abandons a call. It returns false if the call has its result already.
func (b *Batcher[In, Out]) leave(c *call[In, Out]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.done:
		return false
	default:
	}
	c.left = true
	if g := c.group; g != nil {
		if g.here--; g.here == 0 {
			g.cancel()
		}
	}
	return true
}

// runAll runs batches until no call waits.
func (b *Batcher[In, Out]) runAll() {
	for {
		ctx, cancel := context.WithCancel(context.Background())
		g := b.next(cancel)
		if g == nil {
			cancel()
			return
		}
		in := make([]In, len(g.calls))
		for i, c := range g.calls {
			in[i] = c.in
		}
		out, err := b.run(ctx, in)
		cancel()
		if err == nil && len(out) != len(in) {
			err = fmt.Errorf("batch: %d results of %d calls", len(out), len(in))
		}
		b.finish(g, out, err)
	}
}

// run serves the calls of a batch.
func (b *Batcher[In, Out]) run(ctx context.Context, calls []In) (out []Out, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("batch: panic: %v\n%s", v, debug.Stack())
		}
	}()
	return b.options.Run(ctx, calls)
}

// next returns the next batch. It returns nil if no call waits; the next one starts a goroutine then.
func (b *Batcher[In, Out]) next(cancel context.CancelFunc) *group[In, Out] {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := &group[In, Out]{cancel: cancel}
	taken, weight := 0, 0
	for _, c := range b.waiting {
		if !c.left {
			weight += b.options.Weight(c.in)
			if weight > b.options.Max && len(g.calls) > 0 {
				break
			}
			c.group = g
			g.calls = append(g.calls, c)
		}
		taken++
	}
	b.waiting = b.waiting[taken:]
	if len(b.waiting) == 0 {
		b.waiting = nil // Frees the array, which is large after a burst.
	}
	g.here = len(g.calls)
	if g.here == 0 {
		b.busy = false
		return nil
	}
	return g
}

func (b *Batcher[In, Out]) finish(g *group[In, Out], out []Out, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, c := range g.calls {
		if err == nil {
			c.out = out[i]
		}
		c.err = err
		close(c.done)
	}
	// No caller waits for an error that the end of their contexts has caused.
	if err == nil || g.here == 0 || !b.options.Spreads(err) {
		return
	}
	for _, c := range b.waiting {
		c.err = err
		close(c.done)
	}
	b.waiting = nil
}

// Waiting returns the number of calls that wait for their batch.
func (b *Batcher[In, Out]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// Close waits for the calls that were made before. Later ones return [ErrClosed].
func (b *Batcher[In, Out]) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.running.Wait()
}
