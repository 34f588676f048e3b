package control

import "sync"

// worker runs a function in a goroutine of its own whenever it was woken, one run at a
// time. Without work it has no goroutine: for thousands of idle devices, stacks are most
// of their memory.
type worker struct {
	woken chan struct{} // Has a value if it was woken since its last run began; one slot.

	mu      sync.Mutex
	run     func() // nil before start and after stop.
	running bool
	group   sync.WaitGroup // The goroutine.
}

func newWorker() *worker { return &worker{woken: make(chan struct{}, 1)} }

// start makes wake run a function. If the worker was woken before, it runs now.
func (w *worker) start(run func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run = run
	if len(w.woken) > 0 {
		w.begin()
	}
}

// wake causes a run that begins after this call, and does not wait for it. A run in
// progress may receive from woken instead.
func (w *worker) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
}

// begin starts the goroutine if it is not there. Its caller holds the lock.
func (w *worker) begin() {
	if w.running || w.run == nil {
		return
	}
	w.running = true
	run := w.run
	w.group.Go(func() {
		for w.next() {
			run()
		}
	})
}

// next reports whether there is another run. If not, the goroutine ends.
func (w *worker) next() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.woken:
		if w.run != nil {
			return true
		}
	default:
	}
	w.running = false
	return false
}

// stop waits for a run in progress. There is none afterwards.
func (w *worker) stop() {
	w.mu.Lock()
	w.run = nil
	w.mu.Unlock()
	w.group.Wait()
}
