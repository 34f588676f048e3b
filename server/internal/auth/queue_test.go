package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// busy reports whether err is a rate_limited error with a Retry-After.
func busy(err error) bool {
	var e *problem.Error
	return errors.As(err, &e) && e.Status == 429 && e.RetryAfter > 0
}

// flood starts one check from each of n sources, and returns when all wait for their turn.
// Each takes a hundredth of a second.
func flood(t *testing.T, q *queue, n int) *sync.WaitGroup {
	t.Helper()
	var checks sync.WaitGroup
	for i := range n {
		checks.Go(func() {
			if err := q.acquire(t.Context(), fmt.Sprint("source ", i)); err != nil {
				if !busy(err) {
					t.Error(err)
				}
				return
			}
			time.Sleep(10 * time.Millisecond)
			q.release()
		})
	}
	synctest.Wait()
	return &checks
}

func TestQueue_AFloodFromManySourcesDelaysNoPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		first := flood(t, q, 1000)
		started := time.Now()
		if err := q.acquire(t.Context(), "person"); err != nil || time.Since(started) > 20*time.Millisecond {
			t.Errorf("while all try for the first time: %v after %v", err, time.Since(started))
		}
		q.release()
		first.Wait()
		if took := time.Since(started); took > maxQueueWait+time.Second {
			t.Errorf("an attempt waited %v", took)
		}
		// They try again, and so does the person, who mistyped.
		again := flood(t, q, 200)
		started = time.Now()
		if err := q.acquire(t.Context(), "another person"); err != nil || time.Since(started) > 20*time.Millisecond {
			t.Errorf("while all try again: %v after %v", err, time.Since(started))
		}
		q.release()
		again.Wait()
	})
}

func TestQueue_WhoTriesOftenGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		if err := q.acquire(t.Context(), "holder"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var checks sync.WaitGroup
		refused := 0
		try := func(from string) {
			checks.Go(func() {
				err := q.acquire(t.Context(), from)
				mu.Lock()
				defer mu.Unlock()
				if busy(err) {
					refused++
					return
				}
				order = append(order, from)
				q.release()
			})
			synctest.Wait()
		}
		try("person")
		for range maxQueuedPerSource + 3 {
			try("guesser")
		}
		if refused != 3 {
			t.Errorf("%d of one source's checks refused at once, want 3", refused)
		}
		try("later person")
		q.release()
		checks.Wait()
		if len(order) != maxQueuedPerSource+2 || order[0] != "later person" || order[1] != "person" {
			t.Errorf("order %q", order)
		}
	})
}

func TestQueue_LosesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		for round := range 50 {
			var checks sync.WaitGroup
			for i := range 20 {
				checks.Go(func() {
					// Some leave just when their turn comes.
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%5)*10*time.Millisecond)
					defer cancel()
					if q.acquire(ctx, fmt.Sprint(i%7)) == nil {
						time.Sleep(10 * time.Millisecond)
						q.release()
					}
				})
			}
			checks.Wait()
			if q.free != 2 || len(q.waiting) != 0 {
				t.Fatalf("round %d: %d free, %d waiting", round, q.free, len(q.waiting))
			}
		}
		for _, s := range q.sources {
			if s.waiting != 0 {
				t.Errorf("a source with %d waiting checks", s.waiting)
			}
		}
	})
}
