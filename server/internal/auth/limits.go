package auth

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// maxRemembered bounds the keys over their limit that a replica remembers, of about 150
// bytes each. Beyond it, some are counted in the database again.
const maxRemembered = 64 << 10

// forgetScan bounds the keys that are looked at for one whose window has ended, to be
// forgotten when there are too many.
const forgetScan = 16

// Counts is the part of the database that Limits uses.
type Counts interface {
	Take(ctx context.Context, key string, limit int, window time.Duration, now time.Time) (db.Attempt, error)
	Refund(ctx context.Context, key string) error
	Reset(ctx context.Context, key string) error
}

// Limits limits attempts. The database has the exact counts, which all replicas share. A
// replica remembers which keys are over their limit, and for how long: attempts under
// those cost no statement. It is safe for concurrent use.
type Limits struct {
	counts Counts
	now    func() time.Time

	mu      sync.Mutex
	over    map[string]time.Time // When the key's window ends.
	refused uint64
}

// NewLimits returns Limits with counts in a database. A nil now is time.Now.
func NewLimits(counts Counts, now func() time.Time) *Limits {
	if now == nil {
		now = time.Now
	}
	return &Limits{counts: counts, now: now, over: map[string]time.Time{}}
}

// Limit is how many attempts are allowed under a key within a window, which the first
// one opens.
type Limit struct {
	Key    string
	Max    int
	Window time.Duration
	// Told is the name by which the caller is told how many attempts are left; "" tells nothing. The count must be
	// of the caller alone.
	Told string
}

// PerSource returns a limit for the source of the caller in ctx. For IPv6 it returns
// those of the /56 and the /48 around it too, which are wider: see sources.Width.
func PerSource(ctx context.Context, what string, most int, window time.Duration) []Limit {
	var limits []Limit
	for i, network := range sources.Networks(Address(ctx)) {
		limits = append(limits, Limit{Key: what + ":" + networkKey(network), Max: most * sources.Width[i], Window: window})
	}
	limits[0].Told = told[what] // The narrowest network.
	return limits
}

// networkKey returns an IPv4 address without the length of its prefix.
func networkKey(network netip.Prefix) string {
	if network.IsSingleIP() {
		return network.Addr().String()
	}
	if !network.IsValid() {
		return netip.Addr{}.String()
	}
	return network.String()
}

// Over returns how long one of the limits is still exceeded as far as this replica knows;
// 0 if none is. It asks nobody.
func (l *Limits) Over(limits ...Limit) (wait time.Duration) {
	if wait = l.remembered(limits...); wait > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refused++
	}
	return wait
}

// remembered is Over of an attempt that is not refused for it.
func (l *Limits) remembered(limits ...Limit) (wait time.Duration) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, limit := range limits {
		until, ok := l.over[limit.Key]
		if ok && !now.Before(until) {
			delete(l.over, limit.Key)
		}
		wait = max(wait, until.Sub(now))
	}
	return max(wait, 0)
}

// Take counts an attempt under each of the limits, before it is made, so that concurrent
// attempts all count. Over one of them it returns how long to wait.
func (l *Limits) Take(ctx context.Context, limits ...Limit) (time.Duration, error) {
	if wait := l.Over(limits...); wait > 0 {
		l.tellOver(ctx, limits...)
		return wait, nil
	}
	for _, limit := range limits {
		attempt, err := l.counts.Take(ctx, limit.Key, limit.Max, limit.Window, l.now())
		if err != nil {
			return 0, err
		}
		tell(ctx, limit, attempt.Resets, func(int) int { return attempt.Left })
		if attempt.RetryAfter > 0 {
			l.Remember(limit.Key, attempt.RetryAfter)
			return attempt.RetryAfter, nil
		}
	}
	return 0, nil
}

// tellOver tells the caller which of the limits are exceeded.
func (l *Limits) tellOver(ctx context.Context, limits ...Limit) {
	for _, limit := range limits {
		if wait := l.remembered(limit); wait > 0 {
			tell(ctx, limit, wait, func(int) int { return 0 })
		}
	}
}

// Check is Take with a rate_limited error over a limit.
func (l *Limits) Check(ctx context.Context, limits ...Limit) error {
	wait, err := l.Take(ctx, limits...)
	if err == nil && wait > 0 {
		err = problem.RateLimited(wait)
	}
	return err
}

// Refund uncounts an attempt under each of the limits.
func (l *Limits) Refund(ctx context.Context, limits ...Limit) error {
	for _, limit := range limits {
		if err := l.counts.Refund(ctx, limit.Key); err != nil {
			return err
		}
		l.forget(limit.Key)
		tell(ctx, limit, 0, func(left int) int { return left + 1 })
	}
	return nil
}

// Reset forgets the attempts under each of the limits.
func (l *Limits) Reset(ctx context.Context, limits ...Limit) error {
	for _, limit := range limits {
		if err := l.counts.Reset(ctx, limit.Key); err != nil {
			return err
		}
		l.forget(limit.Key)
		tell(ctx, limit, 0, func(int) int { return limit.Max })
	}
	return nil
}

// forget has the database asked about a key again.
func (l *Limits) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.over, key)
}

// Remembered returns the number of keys that are remembered as over their limit.
func (l *Limits) Remembered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.over)
}

// Refused returns the number of attempts that were refused without a statement.
func (l *Limits) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Remember has Over and Take refuse a key for a time without asking the database.
func (l *Limits) Remember(key string, wait time.Duration) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.over) >= maxRemembered {
		looked := 0
		for other, until := range l.over { // In no order.
			if looked++; !now.Before(until) || looked == forgetScan {
				delete(l.over, other)
				break
			}
		}
	}
	l.over[key] = now.Add(wait)
}
