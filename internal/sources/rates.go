package sources

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// maxLimiters is how many networks [Rates] remembers at most, of about 200 bytes each.
const maxLimiters = 16 << 10

// Rates limits how often something may happen for each source and for the networks
// around it, each by a token bucket whose rate and burst are those of a source, times
// its [Width]. It is not safe for concurrent use.
type Rates struct {
	perSecond rate.Limit
	burst     int
	limiters  map[netip.Prefix]*rate.Limiter
	sweepAt   time.Time
}

// NewRates returns limits of so many events per second from one source, and burst at
// once. A burst below 1 counts as 1. If perSecond is 0, everything is allowed.
func NewRates(perSecond float64, burst int) *Rates {
	return &Rates{perSecond: rate.Limit(perSecond), burst: max(1, burst), limiters: map[netip.Prefix]*rate.Limiter{}}
}

// Set changes the limits. If they are others, what sources have used is forgotten.
func (r *Rates) Set(perSecond float64, burst int) {
	if r.perSecond == rate.Limit(perSecond) && r.burst == max(1, burst) {
		return
	}
	r.perSecond, r.burst = rate.Limit(perSecond), max(1, burst)
	clear(r.limiters)
}

// Allow reports whether something may happen for an address at a time, and counts it
// if so. Events that are not allowed do not count.
func (r *Rates) Allow(a netip.Addr, now time.Time) bool { return r.AllowN(a, 1, now) }

// AllowN is [Rates.Allow] for n events at once, which are allowed all or none. More than
// the burst are never allowed.
//
// Sources beyond those that are remembered share the limit of one source, until older
// ones have been silent for long enough to be forgotten.
func (r *Rates) AllowN(a netip.Addr, n int, now time.Time) bool {
	if r.perSecond == 0 {
		return true
	}
	in := networksOf(a)
	if in.n == 1 {
		return r.limiter(in.list[0], Width[0], now).AllowN(now, n)
	}
	var found [levels]*rate.Limiter
	for i := range in.n {
		found[i] = r.limiter(in.list[i], Width[i], now)
		if found[i].TokensAt(now) < float64(n) {
			return false
		}
	}
	for _, l := range found[:in.n] {
		l.AllowN(now, n)
	}
	return true
}

func (r *Rates) limiter(network netip.Prefix, width int, now time.Time) *rate.Limiter {
	l := r.limiters[network]
	if l != nil {
		return l
	}
	if len(r.limiters) >= maxLimiters {
		r.sweep(now)
	}
	if len(r.limiters) >= maxLimiters {
		network, width = netip.Prefix{}, 1
		if l = r.limiters[network]; l != nil {
			return l
		}
	}
	l = rate.NewLimiter(r.perSecond*rate.Limit(width), r.burst*width)
	r.limiters[network] = l
	return l
}

// sweep forgets the networks that may have a whole burst again, at most once a second.
func (r *Rates) sweep(now time.Time) {
	if now.Before(r.sweepAt) {
		return
	}
	r.sweepAt = now.Add(time.Second)
	for network, l := range r.limiters {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(r.limiters, network)
		}
	}
}
