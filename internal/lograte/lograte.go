// Package lograte limits how often a line is logged about one thing.
package lograte

import (
	"sync"
	"time"
)

// Limiter allows one log line for each key in an interval. It is safe for concurrent
// use.
type Limiter struct {
	interval time.Duration

	mu      sync.Mutex
	allowed map[int64]time.Time // When a line was last allowed, by key.
	cleanup time.Time           // When entries that no longer count are removed next.
}

// New returns a Limiter.
func New(interval time.Duration) *Limiter {
	return &Limiter{interval: interval, allowed: map[int64]time.Time{}}
}

// Allow reports whether a line about key may be logged now.
func (l *Limiter) Allow(key int64) bool { return l.AllowAt(key, time.Now()) }

// AllowAt is Allow for a caller that has the time. Times must not decrease.
func (l *Limiter) AllowAt(key int64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.allowed[key]; ok && now.Sub(last) < l.interval {
		return false
	}
	if !now.Before(l.cleanup) {
		for k, last := range l.allowed {
			if now.Sub(last) >= l.interval {
				delete(l.allowed, k)
			}
		}
		l.cleanup = now.Add(l.interval)
	}
	l.allowed[key] = now
	return true
}
