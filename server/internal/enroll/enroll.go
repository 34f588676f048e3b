// Package enroll holds the rules by which a machine becomes a device: RFC 8628
// with this API's names. It is the one owner of each of them; the handlers only
// translate, and the database only keeps.
//
// A machine starts and gets two codes. The device code is its secret, with which
// it polls. The user code is for people: an admin who is told it approves the
// machine. The two never stand in for each other.
package enroll

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// Lifetime is how long a device may stay unapproved.
	Lifetime = 10 * time.Minute
	// Interval is the least time between two polls.
	Interval = 5 * time.Second

	// The ports of a newly approved tunnel server, unless Options say otherwise.
	defaultPortFirst = 20000
	defaultPortLast  = 29999

	// anonymousStarts may happen within anonymousWindow per address.
	anonymousStarts = 20
	anonymousWindow = 10 * time.Minute

	// approveFailures may happen within approveWindow, per admin and per
	// address: with 2^28 codes, guessing one that is pending is hopeless.
	approveFailures = 10
	approveWindow   = time.Minute
)

// Store is what enroll needs of the database.
type Store interface {
	Settings(ctx context.Context) (db.Settings, error)
	UserByID(ctx context.Context, id int64) (db.User, error)
	OrganisationRole(ctx context.Context, organisationID, userID int64) (string, error)
	OrganisationExists(ctx context.Context, id int64) (bool, error)
	CreateDevice(ctx context.Context, device db.NewDevice) (db.Device, error)
	DeviceByCodeHash(ctx context.Context, hash []byte) (db.Device, error)
	DeviceByUserCode(ctx context.Context, userCode string) (db.Device, error)
	RecordPoll(ctx context.Context, id uuid.UUID, now time.Time, interval time.Duration) (time.Duration, error)
	NextEnrollmentToken(ctx context.Context, id uuid.UUID) (int64, error)
	ApproveDevice(ctx context.Context, id uuid.UUID, approval db.Approval) (db.Device, error)
	Take(ctx context.Context, key string, limit int, window time.Duration, now time.Time) (time.Duration, error)
	Reset(ctx context.Context, key string) error
}

// Tokens issues device tokens.
type Tokens interface {
	DeviceToken(id uuid.UUID, kind string, version int64) (string, error)
}

// Options is what an Enroller needs.
type Options struct {
	Store  Store
	Tokens Tokens
	// PublicHost, PortFirst and PortLast are given to a tunnel server that is
	// approved without its own. The zero values are no host, and ports 20000 to
	// 29999.
	PublicHost          string
	PortFirst, PortLast int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Random makes the codes; nil is crypto/rand.
	Random io.Reader
}

// Enroller runs enrollments. It is safe for concurrent use where Random is.
type Enroller struct {
	options Options
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
		return nil, errors.New("enroll: the port range is not one")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Random == nil {
		options.Random = rand.Reader
	}
	return &Enroller{options: options}, nil
}
