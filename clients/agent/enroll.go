package agent

import (
	"context"
	"errors"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// ErrEnrollmentUsed is returned by AwaitApproval if the device has connected with an
// earlier token of the same enrollment, or its token was regenerated: the panel issues no
// other for the device code.
var ErrEnrollmentUsed = errors.New("this enrollment has been used: the device has connected already, or its token was regenerated")

const (
	// defaultInterval and slowDown are RFC 8628's, sections 3.2 and 3.5.
	defaultInterval = 5 * time.Second
	slowDown        = 5 * time.Second
	// maxAway is how long the panel may be unreachable while an approval is awaited. No
	// code lives longer.
	maxAway = 10 * time.Minute
)

// Approval is an enrollment to wait for.
type Approval struct {
	Client     *tunnel.Client   // Required.
	Enrollment types.Enrollment // As StartEnrollment returned it.
	// OnAway is called once each time the panel becomes unreachable. May be nil.
	OnAway func(error)
	// Wait pauses between polls, until ctx ends. Required.
	Wait func(ctx context.Context, d time.Duration) error
}

// AwaitApproval polls until the device is approved and returns its token
// (RFC 8628 section 3.5). The panel's clock alone decides when the code has
// expired. It fails with the panel's enrollment_expired, with enrollment_denied once
// it was denied or the device was deleted, with ErrEnrollmentUsed, and with the last error once the
// panel has been unreachable, or has not known the enrollment, for ten minutes.
func AwaitApproval(ctx context.Context, a Approval) (token string, err error) {
	p := poller{interval: time.Duration(a.Enrollment.Interval) * time.Second, onAway: a.OnAway, wait: a.Wait}
	err = p.run(ctx, func() (bool, error) {
		status, err := a.Client.PollEnrollment(ctx, a.Enrollment.DeviceCode)
		switch {
		case err == nil && status.Token != nil:
			token = *status.Token
			return true, nil
		case err == nil && status.Approved:
			return false, ErrEnrollmentUsed
		}
		return false, err
	})
	return token, err
}

// poller polls until a person has decided.
type poller struct {
	interval time.Duration // 0 or less is defaultInterval.
	onAway   func(error)   // May be nil.
	wait     func(ctx context.Context, d time.Duration) error
}

// run calls poll until it is done or fails for good.
func (p poller) run(ctx context.Context, poll func() (done bool, err error)) error {
	interval := p.interval
	if interval <= 0 {
		interval = defaultInterval
	}
	var away time.Duration
	for pause := interval; ; {
		if err := p.wait(ctx, pause); err != nil {
			return err
		}
		done, err := poll()
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			away, pause = 0, interval
		case tunnel.HasCode(err, types.CodeSlowDown):
			interval += slowDown
			away, pause = 0, max(interval, retryAfter(err))
		case !temporary(err):
			return err
		default:
			if away == 0 && p.onAway != nil {
				p.onAway(err)
			}
			if away += pause; away > maxAway {
				return err
			}
			pause = max(interval, retryAfter(err))
		}
	}
}

// temporary reports whether the panel may answer later: it is restarting, without its
// database, which is perhaps being restored, or under load.
func temporary(err error) bool {
	var unreachable *tunnel.UnreachableError
	return errors.As(err, &unreachable) ||
		tunnel.HasCode(err, types.CodeUnavailable) ||
		tunnel.HasCode(err, types.CodeNotFound) ||
		tunnel.HasCode(err, types.CodeInternalError) ||
		tunnel.HasCode(err, types.CodeRateLimited)
}

func retryAfter(err error) time.Duration {
	var answer *tunnel.Error
	if errors.As(err, &answer) {
		return answer.RetryAfter
	}
	return 0
}
