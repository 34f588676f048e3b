//go:build linux

package player

import (
	"sync"
	"sync/atomic"
)

// fate is how something that goes on until it is closed ends: because it was, or
// because it failed.
type fate struct {
	closing atomic.Bool
	once    sync.Once
	failed  chan struct{}
	err     error // once failed is closed
}

// fail notes the first failure. What fails because it is being closed has not.
func (f *fate) fail(err error) {
	if f.closing.Load() {
		return
	}
	f.once.Do(func() {
		f.err = err
		close(f.failed)
	})
}

// Failed is closed when it has failed; Close says why.
func (f *fate) Failed() <-chan struct{} { return f.failed }
