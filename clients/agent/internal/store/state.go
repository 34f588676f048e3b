package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// retryInterval is the wait before a state that could not be written is tried again.
const retryInterval = 10 * time.Second

// State keeps the last desired state of the control channel in a file, for a start
// at which the panel cannot be reached. It writes in the background, since its
// caller may have players waiting, and only the latest state: a crash may lose the
// last moments, which the panel sends again once it is back. What must not be lost is
// saved with SaveNow. It is safe for concurrent use.
type State[T any] struct {
	path string // "" keeps nothing.
	log  *slog.Logger
	wake chan struct{} // Holds one signal: there is something to write.

	failing bool // The last write failed. Only the goroutine of Start uses it.

	mu      sync.Mutex
	pending bool
	state   *T
	tried   chan struct{} // Closed once the state was written, or could not be.
}

// NewState returns the state kept at path; "" keeps nothing.
func NewState[T any](path string, log *slog.Logger) *State[T] {
	return &State[T]{path: path, log: log, wake: make(chan struct{}, 1)}
}

// Load returns the state kept, or nil where there is none or it cannot be read: the
// panel sends it again. What cannot be read is logged.
func (s *State[T]) Load() *T {
	if s.path == "" {
		return nil
	}
	data, err := files.ReadSecret(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var state *T
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		s.log.Warn("the last desired state cannot be read", slog.String("file", s.path), slog.Any("error", err))
		return nil
	}
	if exposed := files.Exposure(s.path); exposed != nil {
		s.log.Warn("the last desired state is not private", slog.Any("error", exposed))
	}
	return state
}

// Save has a state written, which must not change afterwards; nil removes the file.
// It does not block.
func (s *State[T]) Save(state *T) {
	s.save(state)
}

// SaveNow is Save, but returns once the state is written, or could not be, or after a
// time if that takes longer. Outside of Start and stop it always takes that long.
func (s *State[T]) SaveNow(state *T, limit time.Duration) {
	if s.path == "" {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.save(state):
	case <-timer.C:
	}
}

func (s *State[T]) save(state *T) (tried <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.state = s.path != "", state
	if s.tried == nil {
		s.tried = make(chan struct{})
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.tried
}

// Start writes in the background what is saved, until stop, which returns once the
// last state is written.
func (s *State[T]) Start() (stop func()) {
	ended, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		var retry <-chan time.Time
		for {
			select {
			case <-s.wake:
			case <-retry:
			case <-ended:
				_ = s.write() // Logged.
				return
			}
			retry = nil
			if s.write() != nil {
				retry = time.After(retryInterval)
			}
		}
	}()
	return func() {
		close(ended)
		<-written
	}
}

// write writes the state last saved, if it is not in the file yet.
func (s *State[T]) write() error {
	s.mu.Lock()
	pending, state, tried := s.pending, s.state, s.tried
	s.pending, s.tried = false, nil
	s.mu.Unlock()
	if tried != nil {
		defer close(tried)
	}
	if !pending {
		return nil
	}
	err := s.replace(state)
	if err != nil {
		s.mu.Lock()
		s.pending = true // What was saved meanwhile, if anything, is written then.
		s.mu.Unlock()
	}
	switch {
	case err != nil && !s.failing: // It is tried every few seconds: one line is enough.
		s.log.Warn("the desired state is not kept: a restart will need the panel", slog.Any("error", err))
	case err == nil && s.failing:
		s.log.Info("the desired state is kept again", slog.String("file", s.path))
	}
	s.failing = err != nil
	return err
}

func (s *State[T]) replace(state *T) error {
	if state == nil {
		err := files.Remove(s.path)
		if err != nil && files.Write(s.path, []byte("null\n")) == nil {
			return nil // It is mounted by itself. Load takes this for none.
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", s.path, err)
		}
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("marshal the state: %w", err)
	}
	if err := files.Write(s.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	return nil
}
