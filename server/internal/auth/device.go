package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// A device stops for good when it is told that its token is revoked or that it is
// deleted. So neither is concluded from something that is missing, which it also is in an
// empty database, a foreign one, or one restored from an old backup: the database must
// have a newer token version, or a tombstone.

// tokenFailures is the maximum number of tokens within tokenWindow with a key that the
// panel does not have, from one source, and of those of one device and version that are
// not valid.
const (
	tokenFailures = 60
	tokenWindow   = time.Minute
)

func unknownTokens(ctx context.Context) []Limit {
	return PerSource(ctx, "token:address", tokenFailures, tokenWindow)
}

// tooManyTokens is the error for a token that is not looked up for a time, because too
// many were not valid. Agents of all versions retry after it.
type tooManyTokens struct{ problem *problem.Error }

func (e tooManyTokens) Error() string { return e.problem.Error() }
func (e tooManyTokens) Unwrap() error { return e.problem }

func checkTokens(wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	err := problem.Unavailable("Too many tokens were not valid.", nil)
	err.RetryAfter = wait
	return tooManyTokens{err}
}

// device returns the device of a token whose signature is verified.
func (a *Auth) device(ctx context.Context, claims claims) (Principal, error) {
	// By device and not by source, so that others at the same address are not concerned,
	// and by version, so that who has a revoked token does not lock out who has its successor.
	limit := Limit{Key: fmt.Sprintf("token:device:%s:%d", claims.subject, claims.version), Max: tokenFailures, Window: tokenWindow}
	if err := checkTokens(a.limits.Over(limit)); err != nil {
		return Principal{}, err
	}
	device, err := a.lookUp(ctx, claims)
	switch {
	case err != nil:
		return Principal{}, a.countInvalid(ctx, limit, err)
	case claims.version > device.TokenVersion:
		// It was issued after the backup from which this database was restored.
		return Principal{}, a.countInvalid(ctx, limit, problem.UnknownDevice())
	case device.Kind != claims.kind || device.ApprovedAt == nil:
		return Principal{}, errDeadToken
	}
	return Principal{Device: &device, TokenKey: claims.key}, nil
}

// countInvalid counts a token that is not valid, and returns the error that says so.
func (a *Auth) countInvalid(ctx context.Context, limit Limit, invalid error) error {
	var reason *problem.Error
	if !errors.As(invalid, &reason) {
		return invalid // The database was not asked with success.
	}
	if _, err := a.limits.Take(ctx, limit); err != nil {
		return err
	}
	return invalid
}

// unknownKey returns the error for a device token whose key the panel does not have. Its
// claims are not verified: they select among errors only.
func (a *Auth) unknownKey(ctx context.Context, claims claims) error {
	if _, err := a.lookUp(ctx, claims); err != nil {
		return err
	}
	revoked, err := a.store.SigningKeyRevoked(ctx, claims.key)
	switch {
	case err != nil:
		return err
	case revoked:
		return problem.TokenRevoked()
	}
	return problem.UnknownDevice()
}

// lookUp returns the device of a token that may be valid. The error says why the token
// is not.
func (a *Auth) lookUp(ctx context.Context, claims claims) (db.Device, error) {
	id, err := uuid.Parse(claims.subject)
	if err != nil || claims.version == noVersion {
		return db.Device{}, errDeadToken
	}
	if panel := a.PanelID(); claims.panel != "" && claims.panel != panel.String() {
		return db.Device{}, problem.UnknownDevice()
	}
	device, err := a.store.DeviceByID(ctx, id)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return db.Device{}, a.absent(ctx, id)
	case err != nil:
		return db.Device{}, err
	case claims.version < device.TokenVersion:
		return db.Device{}, problem.TokenRevoked()
	}
	return device, nil
}

// absent returns the error for a device that has no row.
func (a *Auth) absent(ctx context.Context, id uuid.UUID) error {
	deleted, err := a.store.DeviceDeleted(ctx, id)
	switch {
	case err != nil:
		return err
	case deleted:
		return problem.DeviceDeleted()
	}
	return problem.UnknownDevice()
}
