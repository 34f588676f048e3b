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
	// attemptMemory is how long an attempt counts against its source.
	attemptMemory = time.Minute
	// maxSources bounds the sources that are remembered.
	maxSources = 16 << 10
)

// queue admits password checks, a bounded number at a time. The check whose source made
// the fewest recent attempts is next, and of equal ones the newest: under a flood of
// attempts a person still logs in at once, while those that keep trying wait. It is
// safe for concurrent use.
type queue struct {
	mu      sync.Mutex
	free    int // Checks that may start.
	sources map[string]*source
	waiting []*waiter // Oldest first.
}

// source is where attempts come from.
type source struct {
	attempts int       // Since the last success.
	last     time.Time // The last attempt.
	waiting  int
}

// waiter is a check that waits for its turn.
type waiter struct {
	source *source
	turn   chan error // Receives nil when the check may start, or why it may not.
}

// newQueue returns a queue that admits a number of checks at a time.
func newQueue(concurrent int) *queue {
	return &queue{free: concurrent, sources: map[string]*source{}}
}

// errBusy is a check that did not get its turn in time.
func errBusy() error { return problem.RateLimited(maxQueueWait) }

// acquire waits until a check of a source may start, and then needs release. It returns
// a rate_limited error if the queue is full of better checks, or after maxQueueWait if
// others come first, and the error of ctx if that ends before.
func (q *queue) acquire(ctx context.Context, from string) error {
	w, err := q.enter(from)
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
func (q *queue) enter(from string) (*waiter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.source(from)
	s.attempts++
	s.last = time.Now()
	if q.free > 0 {
		q.free--
		return nil, nil
	}
	if s.waiting >= maxQueuedPerSource {
		return nil, errBusy()
	}
	w := &waiter{source: s, turn: make(chan error, 1)}
	s.waiting++
	q.waiting = append(q.waiting, w)
	if len(q.waiting) > maxQueued {
		q.take(q.worst()).turn <- errBusy()
	}
	return w, nil
}

// source returns the state of a source, and forgets those of old.
func (q *queue) source(from string) *source {
	now := time.Now()
	if len(q.sources) >= maxSources {
		for key, s := range q.sources {
			if s.waiting == 0 && (now.Sub(s.last) > attemptMemory || s.attempts <= 1) {
				delete(q.sources, key)
			}
		}
	}
	s := q.sources[from]
	if s == nil {
		s = &source{}
		q.sources[from] = s
	}
	if now.Sub(s.last) > attemptMemory {
		s.attempts = 0
	}
	return s
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
	if s := q.sources[from]; s != nil {
		s.attempts = 0
	}
}

// best returns the index of the check that is next.
func (q *queue) best() int {
	best := 0
	for i, w := range q.waiting {
		if w.source.attempts <= q.waiting[best].source.attempts {
			best = i
		}
	}
	return best
}

// worst returns the index of the check that would be last.
func (q *queue) worst() int {
	worst := 0
	for i, w := range q.waiting {
		if w.source.attempts > q.waiting[worst].source.attempts {
			worst = i
		}
	}
	return worst
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
