package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// stateRetry is the wait before a state that could not be written is tried again.
const stateRetry = 10 * time.Second

// stateFile keeps the panel's last word, a snapshot of the control channel, for a
// start that finds the panel away. It is written behind whoever hands it over, who
// may have players waiting, and only the latest counts: a crash may lose the last
// moments, which the panel, once it is back, says again.
type stateFile[T any] struct {
	path string // "" keeps nothing.
	log  *slog.Logger
	wake chan struct{} // Holds one signal: there is something to write.

	mu      sync.Mutex
	pending bool
	state   *T
}

func newStateFile[T any](path string, log *slog.Logger) *stateFile[T] {
	return &stateFile[T]{path: path, log: log, wake: make(chan struct{}, 1)}
}

// load returns what was last kept, nil where nothing was, or nothing that can be
// read: the panel will say it anew.
func (f *stateFile[T]) load() *T {
	if f.path == "" {
		return nil
	}
	data, err := readPrivate(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var state T
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		f.log.Warn("the last desired state cannot be read", slog.String("file", f.path), slog.Any("error", err))
		return nil
	}
	return &state
}

// save has a state written, which must not change any more; nil removes the file.
// It does not block.
func (f *stateFile[T]) save(state *T) {
	f.mu.Lock()
	f.pending, f.state = f.path != "", state
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// start writes what is saved until stop, which returns once all of it is written.
func (f *stateFile[T]) start() (stop func()) {
	ended, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		var again <-chan time.Time
		for {
			select {
			case <-f.wake:
			case <-again:
			case <-ended:
				_ = f.write() // Logged.
				return
			}
			again = nil
			if f.write() != nil {
				again = time.After(stateRetry)
			}
		}
	}()
	return func() {
		close(ended)
		<-written
	}
}

// write makes the file say what was last saved.
func (f *stateFile[T]) write() error {
	f.mu.Lock()
	pending, state := f.pending, f.state
	f.pending = false
	f.mu.Unlock()
	if !pending {
		return nil
	}
	err := f.replace(state)
	if err != nil {
		f.mu.Lock()
		f.pending = true // With what was saved meanwhile, if anything was.
		f.mu.Unlock()
		f.log.Warn("the desired state is not kept: a restart will need the panel", slog.Any("error", err))
	}
	return err
}

func (f *stateFile[T]) replace(state *T) error {
	if state == nil {
		if err := removePrivate(f.path); err != nil {
			return fmt.Errorf("remove %s: %w", f.path, err)
		}
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("marshal the state: %w", err)
	}
	if err := writePrivate(f.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}
