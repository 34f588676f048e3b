// Package await is how tests wait: for a value where there is a signal, and for a
// condition where there is none. A wait that reaches its limit fails the test.
package await

import (
	"context"
	"errors"
	"testing"
	"time"
)

const (
	// Timeout bounds a wait. No test waits that long unless it fails, however busy
	// the machine is.
	Timeout = 10 * time.Second

	// A condition is looked at again after a sixteenth of the time waited so far,
	// within these bounds: looking may take a process or a query.
	minPollInterval = 2 * time.Millisecond
	maxPollInterval = 50 * time.Millisecond
)

// Receive returns the next value of a channel, which closing it ends with the zero
// value.
func Receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Timeout):
		t.Fatalf("no %s after %v", what, Timeout)
		panic("unreachable")
	}
}

// Until returns once a condition is met that nothing signals.
func Until(t testing.TB, what string, met func() bool) {
	t.Helper()
	Within(t, Timeout, what, func(context.Context) (bool, error) { return met(), nil })
}

// Within is Until with a limit of its own, for a condition that takes time to look
// at. Its context ends with the wait. The last error of the condition is part of
// the failure.
func Within(t testing.TB, limit time.Duration, what string, met func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	started := time.Now()
	var last error
	for {
		ok, err := met(ctx)
		if ok && err == nil {
			return
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-time.After(min(max(time.Since(started)/16, minPollInterval), maxPollInterval)):
		case <-ctx.Done():
			t.Fatalf("no %s after %v (last error: %v)", what, limit, last)
		}
	}
}
