package db

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// ErrBusy means that a statement did not get a connection in time because others wait too. Nothing was
// done; try again later.
var ErrBusy = errors.New("too many wait for a database connection")

type sourceKey struct{}

// WithSource returns a context whose calls count as those of a source, such as the address of a caller.
// Sources take turns when requests wait for connections. Calls without a source count as of one.
func WithSource(ctx context.Context, source netip.Prefix) context.Context {
	return context.WithValue(ctx, sourceKey{}, source)
}

func sourceOf(ctx context.Context) netip.Prefix {
	source, _ := ctx.Value(sourceKey{}).(netip.Prefix)
	return source
}

// turnOptions configure turns. Zero values do not bound.
type turnOptions struct {
	conns      int // Connections of the lane. Required.
	perSource  int // Those that one source may use at a time.
	maxWaiting int
	maxWait    time.Duration
}

// turns has the callers of a lane wait for its connections. Sources take turns; the calls of one source
// are served in their order. It is safe for concurrent use.
type turns struct {
	options turnOptions

	mu      sync.Mutex
	taken   int
	waiting int
	sources map[netip.Prefix]*turnSource
	queue   list.List // Of *turnSource with waiters, the next one first.
	waits   int64
	waited  time.Duration
	refused int64
}

// turnSource is a source that has or waits for connections.
type turnSource struct {
	of      netip.Prefix
	taken   int
	waiters list.List     // Of *turn, oldest first.
	queued  *list.Element // Its place in the queue, while it has waiters.
}

// turn is a call that waits.
type turn struct{ done chan error }

func newTurns(options turnOptions) *turns {
	if options.perSource == 0 {
		options.perSource = options.conns
	}
	return &turns{options: options, sources: map[netip.Prefix]*turnSource{}}
}

// acquire waits for a connection, which release gives back. It returns [ErrBusy] if the wait would be,
// or is, too long, and the error of ctx if that ends before.
func (t *turns) acquire(ctx context.Context, from netip.Prefix) error {
	w, err := t.enter(from)
	if w == nil {
		return err
	}
	started := time.Now()
	var expired <-chan time.Time
	if t.options.maxWait > 0 {
		timer := time.NewTimer(t.options.maxWait)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case err = <-w.Value.(*turn).done:
		t.note(started, nil)
		return err
	case <-expired:
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	if !t.leave(w, from) { // It was answered at the same moment.
		if refused := <-w.Value.(*turn).done; refused != nil {
			t.note(started, nil) // refuseOne has counted it.
			return refused
		}
		t.release(from)
	}
	t.note(started, err)
	return err
}

// enter takes a connection, or returns a waiter in the queue, or an error.
func (t *turns) enter(from netip.Prefix) (*list.Element, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[from]
	if s == nil {
		s = &turnSource{of: from}
		t.sources[from] = s
	}
	if t.taken < t.options.conns && s.taken < t.options.perSource && s.waiters.Len() == 0 {
		t.taken++
		s.taken++
		return nil, nil
	}
	w := s.waiters.PushBack(&turn{done: make(chan error, 1)})
	if s.queued == nil {
		s.queued = t.queue.PushBack(s)
	}
	t.waits++
	if t.waiting++; t.options.maxWaiting > 0 && t.waiting > t.options.maxWaiting {
		t.refuseOne(s)
	}
	return w, nil
}

// refuseOne refuses the newest waiter of the source that has most, or of a given one if none has more.
func (t *turns) refuseOne(most *turnSource) {
	for e := t.queue.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*turnSource); s.waiters.Len() > most.waiters.Len() {
			most = s
		}
	}
	newest := most.waiters.Back()
	t.remove(most, newest)
	newest.Value.(*turn).done <- ErrBusy
	t.refused++
	t.forget(most)
}

// remove takes a waiter out of the queue. Its source goes with its last one.
func (t *turns) remove(s *turnSource, w *list.Element) {
	s.waiters.Remove(w)
	t.waiting--
	if s.waiters.Len() == 0 {
		t.queue.Remove(s.queued)
		s.queued = nil
	}
}

// leave removes a waiter that gives up. It reports false if the waiter has its answer.
func (t *turns) leave(w *list.Element, from netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[from]
	if s == nil || len(w.Value.(*turn).done) > 0 {
		return false
	}
	t.remove(s, w)
	t.forget(s)
	return true
}

// release gives a connection back, and to the next source in the queue that may have it.
func (t *turns) release(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	s := t.sources[from]
	s.taken--
	t.forget(s)
	for e := t.queue.Front(); e != nil; e = e.Next() {
		next := e.Value.(*turnSource)
		if next.taken >= t.options.perSource {
			continue // Of these there are few: they have all connections among them.
		}
		w := next.waiters.Front()
		t.remove(next, w)
		if next.queued != nil {
			t.queue.MoveToBack(next.queued)
		}
		t.taken++
		next.taken++
		w.Value.(*turn).done <- nil
		return
	}
}

// forget forgets a source that neither has nor waits for a connection.
func (t *turns) forget(s *turnSource) {
	if s.taken == 0 && s.waiters.Len() == 0 {
		delete(t.sources, s.of)
	}
}

// note counts a wait that has ended.
func (t *turns) note(started time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waited += time.Since(started)
	if errors.Is(err, ErrBusy) {
		t.refused++
	}
}

// LaneStats are statistics of a lane, a share of the connections.
type LaneStats struct {
	Max, InUse, Waiting int           // Current number of connections, and of calls that wait for one.
	Waits               int64         // Number of waits since the DB was opened.
	Waited              time.Duration // Total time of these waits.
	Refused             int64         // Number of calls that ended with [ErrBusy].
}

func (t *turns) stats() LaneStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return LaneStats{
		Max: t.options.conns, InUse: t.taken, Waiting: t.waiting,
		Waits: t.waits, Waited: t.waited, Refused: t.refused,
	}
}
