package enroll

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// maxLogins is the maximum number of logins that are pending. Those from one source are limited as anonymous
// enrollments are.
const maxLogins = 5000

// LoginStart is a request to let a program act as a person.
type LoginStart struct {
	Client         string
	Host, Platform string // "" if the program does not say.
	Scopes         auth.Scopes
}

// LoginStarted is a started login.
type LoginStarted struct {
	// DeviceCode is the program's secret. Only its hash is stored.
	DeviceCode string
	UserCode   string
	ExpiresAt  time.Time
}

// StartLogin starts the login of a program (RFC 8628 section 3.1). Anybody may. The error may be any problem.Error
// that the contract lists for the operation.
func (e *Enroller) StartLogin(ctx context.Context, start LoginStart) (LoginStarted, error) {
	// The contract's pattern does not cover all Unicode spaces.
	start.Client, start.Host = strings.TrimSpace(start.Client), strings.TrimSpace(start.Host)
	if start.Client == "" {
		return LoginStarted{}, problem.Invalid(problem.Field("client", "is blank"))
	}
	perSource := auth.PerSource(ctx, "login-start:address", anonymousStarts, anonymousWindow)
	if err := e.limits.Check(ctx, perSource...); err != nil {
		return LoginStarted{}, err
	}
	now := e.options.Now()
	login := db.NewDeviceLogin{
		Client: start.Client, Host: start.Host, Platform: start.Platform, Scopes: start.Scopes.Names(),
		CreatedAt: now, ExpiresAt: now.Add(Lifetime), StartedFrom: auth.Address(ctx),
	}
	deviceCode, hash, err := newDeviceCode(e.options.Random, login.ExpiresAt)
	if err != nil {
		return LoginStarted{}, err
	}
	login.CodeHash = hash
	limits := db.PendingLimits{Site: maxLogins, Networks: anonymousNetworks(ctx)}
	for range codeAttempts {
		if login.UserCode, err = newLoginCode(e.options.Random); err != nil {
			return LoginStarted{}, err
		}
		wait, err := e.options.Store.CreateDeviceLogin(ctx, login, limits)
		switch {
		case errors.Is(err, db.ErrConflict):
			continue
		case err != nil:
			return LoginStarted{}, err
		case wait > 0:
			return LoginStarted{}, problem.RateLimited(wait)
		}
		return LoginStarted{DeviceCode: deviceCode, UserCode: login.UserCode, ExpiresAt: login.ExpiresAt}, nil
	}
	// Not ErrConflict, which would blame the request.
	return LoginStarted{}, fmt.Errorf("generate user code: %d codes in a row were in use", codeAttempts)
}

// anonymousNetworks returns how many enrollments or logins without a credential may be pending that were started from
// the networks of the caller in ctx.
func anonymousNetworks(ctx context.Context) []db.NetworkLimit {
	var limits []db.NetworkLimit
	for i, network := range sources.Networks(auth.Address(ctx)) {
		if network.IsValid() {
			limits = append(limits, db.NetworkLimit{Network: network, Max: anonymousStarts * sources.Width[i]})
		}
	}
	return limits
}

// LoginStatus is the state of a login.
type LoginStatus struct {
	Approved bool
	// Key, Text and User are of the key that the program gets, with its text, which is stored nowhere. They are zero
	// unless Approved.
	Key  db.APIKey
	Text string
	User db.User
}

// PollLogin returns the state of the login with a device code (RFC 8628 sections 3.4 and 3.5). The first poll after the
// approval gets the key, at whichever replica. A poll that comes too soon, or from a source with many unknown codes,
// costs no statement from the second on.
func (e *Enroller) PollLogin(ctx context.Context, deviceCode string) (LoginStatus, error) {
	hash := hashDeviceCode(deviceCode)
	perCode := auth.Limit{Key: "login-poll:code:" + hex.EncodeToString(hash)}
	unknown := auth.PerSource(ctx, "login-poll:address", pollFailures, pollWindow)
	if wait := e.limits.Over(append(unknown, perCode)...); wait > 0 {
		return LoginStatus{}, problem.SlowDown(wait)
	}
	login, err := e.options.Store.DeviceLoginByCodeHash(ctx, hash)
	if errors.Is(err, db.ErrNotFound) {
		if wait, err := e.limits.Take(ctx, unknown...); err != nil || wait > 0 {
			return LoginStatus{}, cmp.Or(err, error(problem.SlowDown(wait)))
		}
		// The time in the code is not verified; it only tells its holder what to do.
		if expires, ok := deviceCodeExpiry(deviceCode); ok && !e.options.Now().Before(expires) {
			return LoginStatus{}, problem.LoginExpired()
		}
		return LoginStatus{}, problem.NotFound("There is no login with this device code.")
	}
	if err != nil {
		return LoginStatus{}, err
	}
	now := e.options.Now()
	switch {
	case login.State == db.LoginPending && !now.Before(login.ExpiresAt), login.State == db.LoginDone:
		return LoginStatus{}, problem.LoginExpired()
	case login.State == db.LoginDenied, login.State == db.LoginApproved && login.KeyID == nil:
		return LoginStatus{}, problem.LoginDenied()
	}
	wait, err := e.options.Store.RecordLoginPoll(ctx, login.ID, now, Interval)
	if err != nil {
		return LoginStatus{}, err
	}
	if wait > 0 {
		e.limits.Remember(perCode.Key, wait)
		return LoginStatus{}, problem.SlowDown(wait)
	}
	if login.State == db.LoginPending {
		return LoginStatus{}, nil
	}
	return e.takeLoginKey(ctx, login)
}

// takeLoginKey hands out the key of an approved login.
func (e *Enroller) takeLoginKey(ctx context.Context, login db.DeviceLogin) (LoginStatus, error) {
	status := LoginStatus{Approved: true}
	var err error
	status.Key, status.User, err = e.options.Store.TakeLoginKey(ctx, login.ID, func(prefix string) (hash []byte) {
		status.Text, hash = auth.CompleteAPIKey(prefix)
		return hash
	})
	if errors.Is(err, db.ErrConflict) {
		// Another poll got it, or it was revoked, since the row was read.
		return LoginStatus{}, problem.LoginExpired()
	}
	if err != nil {
		return LoginStatus{}, err
	}
	return status, nil
}
