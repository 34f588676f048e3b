package auth

import (
	"context"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// maxQueueWait is how long a password check waits for its turn, unless it is next.
	maxQueueWait = 2 * time.Second
	// maxQueued is the maximum number of waiting checks, and maxQueuedPerSource that of
	// one source.
	maxQueued          = 256
	maxQueuedPerSource = 8
	// maxFirst is how many checks of a known source come first within attemptMemory.
	maxFirst = 60
	// attemptMemory is how long an attempt counts against its source.
	attemptMemory = time.Minute
	// maxSources bounds the sources that are remembered.
	maxSources = 16 << 10
)

// queue admits password checks, a bounded number at a time. Checks of known sources come
// before others, as long as they make few. Of equal ones, that whose source made the fewest recent attempts is
// next, and of those the newest: under a flood of attempts a person still logs in at
// once, while those that keep trying wait. It is safe for concurrent use.
type queue struct {
	mu      *sync.Mutex // Of several queues if they share sources.
	free    int         // Checks that may start.
	sources *attempts
	waiting []*waiter // Oldest first.
}

// waiter is a check that waits for its turn.
type waiter struct {
	source *source
	known  bool
	turn   chan error // Receives nil when the check may start, or why it may not.
}

// newQueue returns a queue that admits a number of checks at a time.
func newQueue(concurrent int) *queue {
	return &queue{mu: new(sync.Mutex), free: concurrent, sources: newAttempts(attemptMemory, maxSources)}
}

// errBusy is a check that did not get its turn in time.
func errBusy() error { return problem.RateLimited(maxQueueWait) }

// acquire waits until a check of a source may start, and then needs release. A source is
// known if it has logged in to the account before. It returns a rate_limited error if the
// queue is full of better checks, or after maxQueueWait if others come first, and the
// error of ctx if that ends before.
func (q *queue) acquire(ctx context.Context, from string, known bool) error {
	w, err := q.enter(from, known)
	if w == nil {
		return err
	}
	ticker := time.NewTicker(maxQueueWait)
	defer ticker.Stop()
	for waits := true; waits; {
		select {
		case err := <-w.turn:
			return err
		case <-ticker.C:
			waits, err = q.isNext(w), errBusy()
		case <-ctx.Done():
			waits, err = false, ctx.Err()
		}
	}
	if q.remove(w) {
		return err
	}
	// Its turn came at the same moment.
	turn := <-w.turn
	if turn == nil && ctx.Err() != nil {
		q.release()
		return err
	}
	return turn
}

// enter counts an attempt. It returns no waiter if the check may start, or with an error
// if it may not.
func (q *queue) enter(from string, known bool) (*waiter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.sources.add(from)
	if q.free > 0 {
		q.free--
		return nil, nil
	}
	if s.waiting >= maxQueuedPerSource {
		return nil, errBusy()
	}
	w := &waiter{source: s, known: known, turn: make(chan error, 1)}
	s.waiting++
	q.waiting = append(q.waiting, w)
	if len(q.waiting) > maxQueued {
		q.take(q.worst()).turn <- errBusy()
	}
	return w, nil
}

// release ends a check and starts the next.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.free++
		return
	}
	q.take(q.best()).turn <- nil
}

// succeeded forgets the attempts of a source.
func (q *queue) succeeded(from string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sources.reset(from)
}

// best returns the index of the check that is next.
func (q *queue) best() int {
	best := 0
	for i, w := range q.waiting {
		if !q.waiting[best].before(w) {
			best = i
		}
	}
	return best
}

// worst returns the index of the check that would be last.
func (q *queue) worst() int {
	worst := 0
	for i, w := range q.waiting {
		if q.waiting[worst].before(w) {
			worst = i
		}
	}
	return worst
}

// first reports whether w comes before those of unknown sources. A known one that logs in
// again and again does not.
func (w *waiter) first() bool { return w.known && w.source.attempts <= maxFirst }

// before reports whether w comes before other, whichever is newer.
func (w *waiter) before(other *waiter) bool {
	if w.first() != other.first() {
		return w.first()
	}
	return w.source.attempts < other.source.attempts
}

// take removes the check at an index.
func (q *queue) take(i int) *waiter {
	w := q.waiting[i]
	q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
	w.source.waiting--
	return w
}

// isNext reports whether a check is the next to start.
func (q *queue) isNext(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0 && q.waiting[q.best()] == w
}

// remove removes a check that gives up. It reports false if its turn has come.
func (q *queue) remove(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.waiting {
		if other == w {
			q.take(i)
			return true
		}
	}
	return false
}
