package auth

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// told are the limits per source that the caller is told of, with their names: those that it meets by using an
// operation as it should. Of the networks around an address others have their share, and so it is told of none.
var told = map[string]string{
	"approve:address":     "approval",
	"invitation:address":  "invitation",
	"link:address":        "password-link",
	"login:address":       "login",
	"login-poll:address":  "unknown-codes",
	"login-start:address": "device-login",
	"poll:address":        "unknown-codes",
	"revoke:address":      "revocation",
	"start:address":       "enrollment",
}

// rateLimits tells the caller of a request how many attempts are left, by the headers RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10). It is for the goroutine that serves the request.
type rateLimits struct {
	header http.Header
	limits []rateLimit
}

// rateLimit is a limit as of its last attempt.
type rateLimit struct {
	Limit

	left   int
	resets time.Duration
}

type rateLimitsKey struct{}

// withRateLimits returns a context whose limits are told in the header of a response.
func withRateLimits(ctx context.Context, header http.Header) context.Context {
	return context.WithValue(ctx, rateLimitsKey{}, &rateLimits{header: header})
}

// tell sets what is left of a limit, if the caller is told of it. Of one that is told already, change makes the new
// number of the old one.
func tell(ctx context.Context, limit Limit, resets time.Duration, change func(left int) int) {
	r, ok := ctx.Value(rateLimitsKey{}).(*rateLimits)
	if !ok || limit.Told == "" {
		return
	}
	i := slices.IndexFunc(r.limits, func(other rateLimit) bool { return other.Told == limit.Told })
	if i < 0 {
		i = len(r.limits)
		r.limits = append(r.limits, rateLimit{Limit: limit, left: limit.Max, resets: resets})
	}
	r.limits[i].left = min(max(change(r.limits[i].left), 0), limit.Max)
	if resets > 0 {
		r.limits[i].resets = resets
	}
	var policies, states []string
	for _, l := range r.limits {
		policies = append(policies, fmt.Sprintf("%q;q=%d;w=%d", l.Told, l.Max, seconds(l.Window)))
		states = append(states, fmt.Sprintf("%q;r=%d;t=%d", l.Told, l.left, seconds(l.resets)))
	}
	r.header.Set("RateLimit-Policy", strings.Join(policies, ", "))
	r.header.Set("RateLimit", strings.Join(states, ", "))
}

// seconds rounds up, as Retry-After does.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
