package enroll

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Status is the state of an enrollment.
type Status struct {
	Approved bool
	// Token is a new device token, which replaces the previous one. It is empty while
	// the enrollment is pending and after the device has first connected.
	Token string
}

// Poll returns the state of the enrollment with the given device code (RFC 8628
// sections 3.4 and 3.5). Every poll returns a token until the device first connects,
// because a response may be lost. An approved device never expires. A poll that comes too
// soon, or from a source with many unknown codes, costs no statement from the second on.
func (e *Enroller) Poll(ctx context.Context, deviceCode string) (Status, error) {
	hash := hashDeviceCode(deviceCode)
	perCode := auth.Limit{Key: "poll:code:" + hex.EncodeToString(hash)}
	unknown := auth.PerSource(ctx, "poll:address", pollFailures, pollWindow)
	if wait := e.limits.Over(append(unknown, perCode)...); wait > 0 {
		return Status{}, problem.SlowDown(wait)
	}
	device, err := e.options.Store.DeviceByCodeHash(ctx, hash)
	if errors.Is(err, db.ErrNotFound) {
		if wait, err := e.limits.Take(ctx, unknown...); err != nil || wait > 0 {
			return Status{}, cmp.Or(err, error(problem.SlowDown(wait)))
		}
		return Status{}, e.absent(ctx, deviceCode)
	}
	if err != nil {
		return Status{}, err
	}
	now := e.options.Now()
	if device.ApprovedAt == nil && !now.Before(device.ExpiresAt) {
		return Status{}, problem.EnrollmentExpired()
	}
	wait, err := e.options.Store.RecordPoll(ctx, device.ID, now, Interval)
	if err != nil {
		return Status{}, err
	}
	if wait > 0 {
		e.limits.Remember(perCode.Key, wait)
		return Status{}, problem.SlowDown(wait)
	}
	switch {
	case device.ApprovedAt == nil:
		return Status{}, nil
	case device.FirstConnectedAt != nil:
		return Status{Approved: true}, nil
	}
	return e.issue(ctx, device)
}

// absent returns the error for a device code without a row: the enrollment was denied, or
// it expired and its row is cleaned up, or this database never had it. The time in the
// code is not verified; it only tells its holder what to do.
func (e *Enroller) absent(ctx context.Context, deviceCode string) error {
	denied, err := e.options.Store.EnrollmentDenied(ctx, hashDeviceCode(deviceCode))
	if err != nil {
		return err
	}
	expires, ok := deviceCodeExpiry(deviceCode)
	switch {
	case denied:
		return problem.EnrollmentDenied()
	case ok && !e.options.Now().Before(expires):
		return problem.EnrollmentExpired()
	}
	return problem.NotFound("There is no enrollment with this device code.")
}

func (e *Enroller) issue(ctx context.Context, device db.Device) (Status, error) {
	version, err := e.options.Store.NextEnrollmentToken(db.WithActor(ctx, device.Actor(ctx)), device.ID)
	if errors.Is(err, db.ErrConflict) {
		// It connected after the row was read, with the token from its last poll.
		return Status{Approved: true}, nil
	}
	if err != nil {
		return Status{}, err
	}
	token, err := e.options.Tokens.DeviceToken(device.ID, device.Kind, version)
	if err != nil {
		return Status{}, err
	}
	return Status{Approved: true, Token: token}, nil
}
