package batch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/batch"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

var errBatch = errors.New("the batch failed")

// runner serves batches of numbers with their doubles, each when the test says so.
type runner struct {
	*batch.Batcher[int, int]
	begun chan run
}

// run is a batch in progress.
type run struct {
	ctx   context.Context
	calls []int
	end   chan<- error
}

func newRunner(t *testing.T, limit int, weight func(int) int, spreads func(error) bool) *runner {
	t.Helper()
	r := &runner{begun: make(chan run)}
	r.Batcher = batch.New(batch.Options[int, int]{Max: limit, Weight: weight, Spreads: spreads, Run: func(ctx context.Context, calls []int) ([]int, error) {
		end := make(chan error)
		r.begun <- run{ctx, calls, end}
		if err := <-end; err != nil {
			return nil, err
		}
		out := make([]int, len(calls))
		for i, n := range calls {
			out[i] = 2 * n
		}
		return out, nil
	}})
	t.Cleanup(r.Close)
	return r
}

// result is what a call returned.
type result struct {
	out int
	err error
}

// call makes a call, and returns once the runner has it or it has its result. Its result follows.
func (r *runner) call(t *testing.T, ctx context.Context, n int) <-chan result {
	t.Helper()
	results := make(chan result, 1)
	before := r.Waiting()
	go func() {
		out, err := r.Do(ctx, n)
		results <- result{out, err}
	}()
	await.Until(t, "call in the queue", func() bool { return r.Waiting() > before })
	return results
}

// first begins a batch of one call, behind which later calls wait.
func (r *runner) first(t *testing.T) (run, <-chan result) {
	t.Helper()
	results := make(chan result, 1)
	go func() {
		out, err := r.Do(t.Context(), 0)
		results <- result{out, err}
	}()
	return await.Receive(t, r.begun, "batch"), results
}

func (r *runner) wantBatch(t *testing.T, calls ...int) run {
	t.Helper()
	got := await.Receive(t, r.begun, "batch")
	if !slices.Equal(got.calls, calls) {
		t.Fatalf("batch of %v, want %v", got.calls, calls)
	}
	return got
}

func want(t *testing.T, results <-chan result, out int, err error) {
	t.Helper()
	if got := await.Receive(t, results, "result"); got.out != out || !errors.Is(got.err, err) {
		t.Errorf("got %d, %v; want %d, %v", got.out, got.err, out, err)
	}
}

func TestBatcher_CallsThatArriveMeanwhileShareTheNextBatchInOrder(t *testing.T) {
	r := newRunner(t, 3, nil, nil)
	alone, zero := r.first(t)
	if !slices.Equal(alone.calls, []int{0}) {
		t.Fatalf("the first call waited for others: %v", alone.calls)
	}
	var results []<-chan result
	for n := 1; n <= 5; n++ {
		results = append(results, r.call(t, t.Context(), n))
	}
	alone.end <- nil
	want(t, zero, 0, nil)
	r.wantBatch(t, 1, 2, 3).end <- nil // Not more than the limit.
	r.wantBatch(t, 4, 5).end <- nil
	for i, results := range results {
		want(t, results, 2*(i+1), nil)
	}
}

func TestBatcher_HeavyCallsShareABatchWithFew(t *testing.T) {
	r := newRunner(t, 10, func(n int) int { return n }, nil)
	alone, _ := r.first(t)
	for _, n := range []int{4, 6, 1, 11, 10, 3, 8} {
		r.call(t, t.Context(), n)
	}
	alone.end <- nil
	for _, calls := range [][]int{{4, 6}, {1}, {11}, {10}, {3}, {8}} { // 11 alone, though it is more than the limit.
		r.wantBatch(t, calls...).end <- nil
	}
}

func TestBatcher_ErrorIsThatOfItsBatch(t *testing.T) {
	for name, spreads := range map[string]bool{"alone": false, "and of those who wait": true} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t, 2, nil, func(err error) bool { return spreads && errors.Is(err, errBatch) })
			current, zero := r.first(t)
			one, two, three := r.call(t, t.Context(), 1), r.call(t, t.Context(), 2), r.call(t, t.Context(), 3)
			current.end <- nil
			want(t, zero, 0, nil)
			r.wantBatch(t, 1, 2).end <- errBatch
			want(t, one, 0, errBatch)
			want(t, two, 0, errBatch)
			if spreads {
				want(t, three, 0, errBatch)
			} else {
				r.wantBatch(t, 3).end <- nil
				want(t, three, 6, nil)
			}
			// It still works.
			next, zero := r.first(t)
			next.end <- nil
			want(t, zero, 0, nil)
		})
	}
}

func TestBatcher_CallerThatLeavesHoldsUpNobody(t *testing.T) {
	r := newRunner(t, 10, nil, func(error) bool { return true })
	ctx, leave := context.WithCancel(t.Context())
	current, zero := r.first(t)
	waits, stays := r.call(t, ctx, 1), r.call(t, t.Context(), 2)
	leave()
	want(t, waits, 0, context.Canceled)
	current.end <- nil
	want(t, zero, 0, nil)

	// One that leaves a batch in progress does not end it for the other.
	ctx, leave = context.WithCancel(t.Context())
	current = r.wantBatch(t, 2)
	leaves, other := r.call(t, ctx, 3), r.call(t, t.Context(), 4)
	current.end <- nil
	want(t, stays, 4, nil)
	current = r.wantBatch(t, 3, 4)
	leave()
	want(t, leaves, 0, context.Canceled)
	if err := current.ctx.Err(); err != nil {
		t.Errorf("the batch of another caller: %v", err)
	}
	current.end <- nil
	want(t, other, 8, nil)

	// The last one does, and its error is not that of later calls.
	ctx, leave = context.WithCancel(t.Context())
	current, zero = r.first(t)
	last := r.call(t, ctx, 5)
	current.end <- nil
	want(t, zero, 0, nil)
	current = r.wantBatch(t, 5)
	later := r.call(t, t.Context(), 6)
	leave()
	want(t, last, 0, context.Canceled)
	await.Receive(t, current.ctx.Done(), "end of the batch that nobody waits for")
	current.end <- current.ctx.Err()
	r.wantBatch(t, 6).end <- nil
	want(t, later, 12, nil)

	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := r.Do(ended, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that had ended: %v", err)
	}
}

func TestBatcher_LosesNoCall(t *testing.T) {
	var calls sync.WaitGroup
	running, most := 0, 0 // Run is called by one goroutine at a time, so they need no lock.
	b := batch.New(batch.Options[int, int]{Max: 7, Run: func(_ context.Context, calls []int) ([]int, error) {
		running++
		defer func() { running-- }()
		most = max(most, len(calls))
		if running > 1 {
			return nil, errors.New("two batches at a time")
		}
		return slices.Clone(calls), nil
	}})
	for n := range 5000 {
		calls.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if n%10 == 0 {
				go cancel() // Early or late.
			}
			out, err := b.Do(ctx, n)
			if err == nil && out != n || err != nil && (n%10 != 0 || !errors.Is(err, context.Canceled)) {
				t.Errorf("call %d: %d, %v", n, out, err)
			}
		})
	}
	calls.Wait()
	b.Close()
	if most > 7 {
		t.Errorf("a batch of %d", most)
	}
	if _, err := b.Do(t.Context(), 1); !errors.Is(err, batch.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestBatcher_WrongNumberOfResultsIsAnError(t *testing.T) {
	b := batch.New(batch.Options[int, int]{Run: func(context.Context, []int) ([]int, error) { return nil, nil }})
	defer b.Close()
	if _, err := b.Do(t.Context(), 1); err == nil {
		t.Error("no error")
	}
}

func TestBatcher_APanicIsTheErrorOfItsBatchAlone(t *testing.T) {
	b := batch.New(batch.Options[int, int]{Max: 1, Spreads: func(error) bool { return false }, Run: func(_ context.Context, calls []int) ([]int, error) {
		if calls[0] < 0 {
			panic("negative")
		}
		return calls, nil
	}})
	t.Cleanup(b.Close)
	if _, err := b.Do(t.Context(), -1); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("error %v", err)
	}
	if out, err := b.Do(t.Context(), 1); out != 1 || err != nil {
		t.Errorf("then %d, %v", out, err)
	}
}
