// Package enroll implements device enrollment: RFC 8628 with this API's names. All of
// its rules are here; handlers only convert and the database only stores.
//
// A machine starts an enrollment and receives two codes. The device code is its
// secret, with which it polls. The user code is for people: who enters it approves or
// denies the machine, if the policy of package auth permits it. Neither is accepted in
// place of the other.
//
// A program that is to act as a person logs in by the same grant, and gets an API key of the person who enters its
// user code. Its codes have a form of their own.
package enroll

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	// Lifetime is the time within which a device must be approved.
	Lifetime = 10 * time.Minute
	// Interval is the minimum time between two polls.
	Interval = 5 * time.Second

	// The default port range of a newly approved tunnel server.
	defaultPortFirst = 20000
	defaultPortLast  = 29999

	// anonymousStarts is the maximum number of anonymous starts per source within
	// anonymousWindow, and of those that are pending.
	anonymousStarts = 20
	anonymousWindow = 10 * time.Minute

	// approveFailures is the maximum number of wrong user codes within approveWindow,
	// per user and per address, whatever is asked with them. There are 2^28 codes, so guessing a pending one is not
	// feasible.
	approveFailures = 10
	approveWindow   = time.Minute

	// tagReads is the maximum number of looks for enrollments by their tags within tagWindow, per
	// account: ten pages that look every two seconds. Tags cannot be guessed.
	tagReads  = 300
	tagWindow = time.Minute

	// pollFailures is the maximum number of polls with unknown codes within pollWindow,
	// per source.
	pollFailures = 60
	pollWindow   = time.Minute

	// maxPending is the maximum number of pending enrollments of the panel, of which
	// maxAnonymous are without an owner, and maxOwned the maximum of one user or
	// organisation: anonymous ones cannot keep out others.
	maxPending   = 10_000
	maxAnonymous = maxPending / 2
	maxOwned     = 500
)

// Store is the part of the database that enroll uses.
type Store interface {
	Settings(ctx context.Context) (db.Settings, error)
	UserByID(ctx context.Context, id int64) (db.User, error)
	OrganisationRole(ctx context.Context, organisationID, userID int64) (string, error)
	OrganisationExists(ctx context.Context, id int64) (bool, error)
	CreateDevice(ctx context.Context, device db.NewDevice) (db.Device, error)
	CreatePending(ctx context.Context, device db.NewDevice, limits db.PendingLimits) (db.Device, time.Duration, error)
	DeviceByCodeHash(ctx context.Context, hash []byte) (db.Device, error)
	EnrollmentDenied(ctx context.Context, hash []byte) (bool, error)
	EnrollmentByUserCode(ctx context.Context, userCode string, userID int64) (db.Enrollment, error)
	EnrollmentByTag(ctx context.Context, hash []byte, userID int64) (db.Enrollment, error)
	RecordPoll(ctx context.Context, id uuid.UUID, now time.Time, interval time.Duration) (time.Duration, error)
	NextEnrollmentToken(ctx context.Context, id uuid.UUID) (int64, error)
	ApproveDevice(ctx context.Context, id uuid.UUID, approval db.Approval) (db.Device, error)
	DenyDevice(ctx context.Context, id uuid.UUID, at time.Time) error
	RecordRefusal(ctx context.Context, refusal db.Refusal) error
	CreateDeviceLogin(ctx context.Context, login db.NewDeviceLogin, limits db.PendingLimits) (time.Duration, error)
	DeviceLoginByCodeHash(ctx context.Context, hash []byte) (db.DeviceLogin, error)
	DeviceLoginByUserCode(ctx context.Context, userCode string) (db.DeviceLogin, error)
	RecordLoginPoll(ctx context.Context, id int64, now time.Time, interval time.Duration) (time.Duration, error)
	ApproveDeviceLogin(ctx context.Context, scope db.Scope, id int64, key db.APIKey) (db.APIKey, error)
	DenyDeviceLogin(ctx context.Context, id int64, at time.Time) error
	TakeLoginKey(ctx context.Context, id int64, newHash func(prefix string) []byte) (db.APIKey, db.User, error)
	auth.Counts
}

// Tokens issues device tokens.
type Tokens interface {
	DeviceToken(id uuid.UUID, kind string, version int64) (string, error)
}

// Options configures an Enroller.
type Options struct {
	Store  Store  // Required.
	Tokens Tokens // Required.
	// PublicHost, PortFirst and PortLast are the defaults of a tunnel server that is
	// approved without its own. Zero values mean no host, and ports 20000 to 29999.
	PublicHost          string
	PortFirst, PortLast int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Random is the source of codes; nil is crypto/rand.
	Random io.Reader
}

// Enroller runs enrollments. It is safe for concurrent use if Options.Random is.
type Enroller struct {
	options Options
	limits  *auth.Limits
}

// New checks the options.
func New(options Options) (*Enroller, error) {
	if options.Store == nil || options.Tokens == nil {
		return nil, errors.New("enroll: Store and Tokens are required")
	}
	if options.PortFirst == 0 && options.PortLast == 0 {
		options.PortFirst, options.PortLast = defaultPortFirst, defaultPortLast
	}
	if options.PortFirst < 1 || options.PortLast > 65535 || options.PortFirst > options.PortLast {
		return nil, errors.New("enroll: invalid port range")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Random == nil {
		options.Random = rand.Reader
	}
	return &Enroller{options: options, limits: auth.NewLimits(options.Store, options.Now)}, nil
}
