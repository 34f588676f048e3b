// Package backoff spaces out retries, so that many peers that lost the same
// thing at once do not all come back at once.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Exponential is exponential back-off with full jitter. The nth wait is uniformly
// distributed between 0 and Min doubled n-1 times, capped at Max. The zero value
// is ready to use. It is not safe for concurrent use.
type Exponential struct {
	Min, Max time.Duration  // 0: 250 ms and 2 s.
	Rand     func() float64 // Uniform in [0,1); nil: math/rand/v2.

	failures int
}

// Next returns the wait before the next attempt and counts that.
func (b *Exponential) Next() time.Duration {
	lo, hi, random := b.Min, b.Max, b.Rand
	if lo == 0 {
		lo = 250 * time.Millisecond
	}
	if hi == 0 {
		// With the time that an attempt takes to fail, a peer is back within about 3 s
		// of the end of an outage. On average it makes one attempt a second.
		hi = 2 * time.Second
	}
	if random == nil {
		random = rand.Float64
	}
	ceiling := hi
	if shift := b.failures; shift < 32 && lo<<shift < hi && lo<<shift > 0 {
		ceiling = lo << shift
	}
	b.failures++
	return time.Duration(random() * float64(ceiling))
}

// Wait waits before the next attempt and counts that. Its only error is that of ctx,
// if that ends first.
func (b *Exponential) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset starts over, after a success.
func (b *Exponential) Reset() { b.failures = 0 }
