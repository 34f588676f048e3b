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
			if err := q.acquire(t.Context(), fmt.Sprint("source ", i), false); err != nil {
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
		if err := q.acquire(t.Context(), "person", false); err != nil || time.Since(started) > 20*time.Millisecond {
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
		if err := q.acquire(t.Context(), "another person", false); err != nil || time.Since(started) > 20*time.Millisecond {
			t.Errorf("while all try again: %v after %v", err, time.Since(started))
		}
		q.release()
		again.Wait()
	})
}

func TestQueue_WhoTriesOftenGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		if err := q.acquire(t.Context(), "holder", false); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var checks sync.WaitGroup
		refused := 0
		try := func(from string) {
			checks.Go(func() {
				err := q.acquire(t.Context(), from, false)
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
					if q.acquire(ctx, fmt.Sprint(i%7), false) == nil {
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
		for _, s := range q.sources.all {
			if s.waiting != 0 {
				t.Errorf("a source with %d waiting checks", s.waiting)
			}
		}
	})
}

func TestQueue_KnownSourcesComeBeforeAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		crowd := flood(t, q, 1000)
		var known sync.WaitGroup
		for i := range maxQueuedPerSource {
			known.Go(func() {
				started := time.Now()
				// They mistype, and come after all others by their attempts.
				for range 5 {
					if err := q.acquire(t.Context(), "owner", true); err != nil {
						t.Errorf("owner %d: %v", i, err)
						return
					}
					time.Sleep(10 * time.Millisecond)
					q.release()
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("owner %d waited %v", i, took)
				}
			})
		}
		late := flood(t, q, 1000)
		known.Wait()
		crowd.Wait()
		late.Wait()
	})
}

func TestQueue_AKnownSourceThatLogsInAllTheTimeDoesNotComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		ctx, cancel := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		for range maxQueuedPerSource {
			crowd.Go(func() {
				for ctx.Err() == nil && q.acquire(ctx, "customer", true) == nil {
					time.Sleep(50 * time.Millisecond)
					q.release()
				}
			})
		}
		time.Sleep(10 * time.Second)
		for i := range 10 {
			if err := q.acquire(t.Context(), fmt.Sprint("newcomer ", i), false); err != nil {
				t.Error(err)
				break
			}
			q.release()
		}
		cancel()
		crowd.Wait()
	})
}

func TestAttempts_AreOfABoundedNumberOfSources(t *testing.T) {
	a := newAttempts(time.Minute, 1000)
	a.add("waits").waiting++
	for range 10 {
		a.add("guesser")
	}
	for i := range 10_000 {
		a.add(fmt.Sprint(i))
	}
	if len(a.all) != 1000 || a.all["waits"] == nil || a.all["9999"] == nil {
		t.Errorf("%d sources", len(a.all))
	}
	if a.all["guesser"] == nil {
		t.Error("who tries often was forgotten before others")
	}
}

func TestPaces_OneAttemptOnAnAccountInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaces(guessInterval)
		kept := func() int {
			synctest.Wait() // For what a timer has begun.
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.accounts)
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		passed := map[string]int{}
		started := time.Now()
		attempt := func(account, from string) {
			all.Go(func() {
				err := p.wait(t.Context(), account, from)
				if err != nil && !busy(err) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					passed[account]++
				}
			})
		}
		for range 2 {
			for i := range 3000 {
				attempt("ada", fmt.Sprint("source ", i))
			}
			attempt("eve", "source 1") // Another account has a pace of its own.
			synctest.Wait()
		}
		// Who has tried less in the last hour is next.
		time.Sleep(time.Millisecond)
		if err := p.wait(t.Context(), "ada", "owner"); err != nil || time.Since(started) > guessInterval {
			t.Errorf("the owner: %v after %v", err, time.Since(started))
		}
		all.Wait()
		time.Sleep(time.Second)
		// At once, at 0.5 s the owner, at 1, 1.5 and 2 s, and then the one that is next.
		if n := passed["ada"]; n < 3 || n > 5 || passed["eve"] != 2 {
			t.Errorf("attempts that passed: %v", passed)
		}
		if n := kept(); n != 0 {
			t.Errorf("%d accounts are remembered", n)
		}
		if n := p.count(); n != 6003 {
			t.Errorf("%d were slowed down", n)
		}
		for i := range 2 * maxPaces {
			attempt(fmt.Sprint("account ", i), "source 1")
		}
		if n := kept(); n != maxPaces+1 {
			t.Errorf("%d accounts are remembered", n)
		}
		all.Wait()
		time.Sleep(time.Second)
	})
}
