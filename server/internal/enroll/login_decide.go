package enroll

import (
	"context"
	"errors"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// loginKeyLifetime is how long the key of a login is valid unless the person says another time.
	loginKeyLifetime = 90 * 24 * time.Hour
	// maxKeyName is the contract's limit of the name of a key, in characters.
	maxKeyName = 100
)

// PendingLogin is a login that waits for approval, as a person sees it.
type PendingLogin struct {
	db.DeviceLogin
	// SameNetwork means that it was started from the source of the caller's address.
	SameNetwork bool
}

// PendingLogin returns the pending login with a user code. The caller in ctx is a user: every user may approve every
// login, because its key is one of the user's own. The error may be any problem.Error that the contract lists for the
// operation.
func (e *Enroller) PendingLogin(ctx context.Context, userCode string) (PendingLogin, error) {
	var pending PendingLogin
	err := e.decideLogin(ctx, userCode, func(login db.DeviceLogin, _ time.Time) error {
		pending = PendingLogin{DeviceLogin: login, SameNetwork: sameNetwork(ctx, login.StartedFrom)}
		return nil
	})
	return pending, err
}

// sameNetwork reports whether an address, nil for none, is of the source of the caller in ctx.
func sameNetwork(ctx context.Context, address *string) bool {
	if address == nil {
		return false
	}
	from, err := netip.ParseAddr(*address)
	here := sources.Of(auth.Address(ctx))
	return err == nil && here.IsValid() && sources.Of(from) == here
}

// LoginApproval is a request to approve the login with a user code.
type LoginApproval struct {
	UserCode string
	// Scopes are what the program may do, of what it asks for; nil is all of that which the caller may give.
	Scopes *auth.Scopes
	// ExpiresAt is from when on the key is not valid; nil is in 90 days.
	ExpiresAt *time.Time
}

// ApproveLogin makes a key of the caller in ctx, a user, for the program of a pending login, which gets it with its next
// poll. The error may be any problem.Error that the contract lists for the operation.
func (e *Enroller) ApproveLogin(ctx context.Context, approval LoginApproval) (db.APIKey, error) {
	// What is wrong with other fields does not count as a guess.
	if approval.ExpiresAt != nil && !e.options.Now().Before(*approval.ExpiresAt) {
		return db.APIKey{}, problem.Invalid(problem.Field("expiresAt", "is past"))
	}
	caller := auth.FromContext(ctx)
	mayAdmin := caller.May("approveDeviceLogin", auth.AdminKey)
	if approval.Scopes != nil && *approval.Scopes&auth.ScopeAdmin != 0 && !mayAdmin {
		return db.APIKey{}, problem.Forbidden("Only an admin can create a key with the scope admin.")
	}
	var key db.APIKey
	err := e.decideLogin(ctx, approval.UserCode, func(login db.DeviceLogin, now time.Time) (err error) {
		asked := auth.ParseScopes(login.Scopes)
		scopes := asked
		if !mayAdmin {
			scopes &^= auth.ScopeAdmin
		}
		if approval.Scopes != nil {
			scopes = *approval.Scopes
		}
		if scopes&^asked != 0 {
			return problem.Invalid(problem.Field("scopes", "has one that the program has not asked for"))
		}
		if scopes == 0 {
			return problem.Forbidden("Only an admin can create a key with the scope admin.")
		}
		expires := now.Add(loginKeyLifetime)
		if approval.ExpiresAt != nil {
			expires = *approval.ExpiresAt
		}
		key, err = e.options.Store.ApproveDeviceLogin(ctx, caller.Scope(), login.ID, db.APIKey{
			APIKeyOwner: db.APIKeyOwner{UserID: &caller.User.ID},
			Name:        loginKeyName(login), Prefix: auth.NewAPIKeyPrefix(), Scopes: scopes.Names(),
			CreatedAt: now, ExpiresAt: &expires,
		})
		return err
	})
	return key, err
}

// loginKeyName returns the name of a login's key, such as "eclitunnel on gaming-rig".
func loginKeyName(login db.DeviceLogin) string {
	name := login.Client
	if login.Host != nil {
		name += " on " + *login.Host
	}
	for utf8.RuneCountInString(name) > maxKeyName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}

// DenyLogin ends a pending login for good. The caller in ctx is a user. The error may be any problem.Error that the
// contract lists for the operation.
func (e *Enroller) DenyLogin(ctx context.Context, userCode string) error {
	return e.decideLogin(ctx, userCode, func(login db.DeviceLogin, now time.Time) error {
		return e.options.Store.DenyDeviceLogin(ctx, login.ID, now)
	})
}

// decideLogin calls act with the pending login that has a user code. act returns db.ErrConflict if the login is not
// pending any more. Attempts count under the limits of enrollments' codes: who guesses has no more of them for it.
func (e *Enroller) decideLogin(ctx context.Context, userCode string, act func(db.DeviceLogin, time.Time) error) error {
	limits := append(auth.PerSource(ctx, "approve:address", approveFailures, approveWindow),
		auth.Limit{Key: "approve:" + auth.FromContext(ctx).Account(), Max: approveFailures, Window: approveWindow, Told: "approval-account"})
	// Counted before the code is tried, so that concurrent guesses all count.
	if err := e.limits.Check(ctx, limits...); err != nil {
		return err
	}
	now := e.options.Now()
	login, err := e.findLogin(ctx, userCode, now)
	if err != nil {
		return err
	}
	err = act(login, now)
	if errors.Is(err, db.ErrConflict) && !errors.Is(err, db.ErrTooManyKeys) {
		// It was decided since it was read: find out how.
		if _, err := e.findLogin(ctx, userCode, now); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return e.limits.Refund(ctx, limits...)
}

// findLogin returns the pending login with a user code.
func (e *Enroller) findLogin(ctx context.Context, userCode string, now time.Time) (db.DeviceLogin, error) {
	login, err := e.options.Store.DeviceLoginByUserCode(ctx, normaliseLoginCode(userCode))
	switch {
	case errors.Is(err, db.ErrNotFound), err == nil && login.State == db.LoginDenied:
		return db.DeviceLogin{}, problem.NotFound("There is no login with this code.")
	case err != nil:
		return db.DeviceLogin{}, err
	case login.State != db.LoginPending:
		return db.DeviceLogin{}, problem.Conflict("This login has been approved already.")
	case !now.Before(login.ExpiresAt):
		return db.DeviceLogin{}, problem.LoginExpired()
	}
	return login, nil
}
