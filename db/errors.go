package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

var (
	// ErrNotFound means that the row does not exist, or is outside the caller's [Scope].
	ErrNotFound = errors.New("not found")
	// ErrForbidden means that the caller's [Scope] includes the row, but the caller may not change it so.
	ErrForbidden = errors.New("forbidden")
	// ErrConflict means that the state of the row, or another row, prevents the operation.
	ErrConflict = errors.New("conflict")
	// ErrOnline means that the device has a connection, which the operation would replace.
	ErrOnline = errors.New("the device is online")
	// ErrTagTaken means that another enrollment has the tag. It is an ErrConflict.
	ErrTagTaken = fmt.Errorf("tag of another enrollment: %w", ErrConflict)
	// ErrPortTaken means that the requested port, or another port of the run, belongs to another
	// allocation.
	ErrPortTaken = errors.New("port taken")
	// ErrNoPorts means that the range has no free port left, or no free run.
	ErrNoPorts = errors.New("no ports left")
	// ErrNoServer means that no suitable tunnel server is online.
	ErrNoServer = errors.New("no suitable tunnel server")
	// ErrNewerSchema means that the database belongs to a later version of this program.
	ErrNewerSchema = errors.New("the database schema is newer than this program")
	// ErrNoTLS means that the server offers no TLS, which the URL asks for or does not waive.
	ErrNoTLS = errors.New("the database server offers no TLS")
	// ErrEncoding means that the database does not store text as UTF-8.
	ErrEncoding = errors.New("the database is not UTF-8")
	// ErrSecretKeys means that a secret is encrypted, and none of the keys given opens it.
	ErrSecretKeys = errors.New("it is encrypted, and the panel was given no key that opens it")
	// ErrCordoned means that the tunnel server accepts no new allocations, ErrDraining that it accepts
	// no players either, and ErrOffline that it is not connected. Each of them is an ErrConflict.
	ErrCordoned = fmt.Errorf("tunnel server is cordoned: %w", ErrConflict)
	ErrDraining = fmt.Errorf("tunnel server is draining: %w", ErrConflict)
	ErrOffline  = fmt.Errorf("tunnel server is not online: %w", ErrConflict)
	// ErrLastAdmin means that no admin would be left who can log in, ErrLastOwner that an organisation
	// would be left without an owner who is not suspended, and ErrOwnsDevices that devices would be left
	// without one. ErrTooMany means that there can be no more of something, ErrUnapproved that the device
	// is not approved, and ErrUnserved that a tunnel server could not serve the device's allocations for
	// its new owner. Each of them is an ErrConflict.
	ErrLastAdmin   = fmt.Errorf("last admin: %w", ErrConflict)
	ErrLastOwner   = fmt.Errorf("last owner of an organisation: %w", ErrConflict)
	ErrOwnsDevices = fmt.Errorf("has devices: %w", ErrConflict)
	ErrTooMany     = fmt.Errorf("too many: %w", ErrConflict)
	ErrUnapproved  = fmt.Errorf("device is not approved: %w", ErrConflict)
	ErrUnserved    = fmt.Errorf("tunnel server may not serve the new owner: %w", ErrConflict)
	// ErrTooManyKeys means that the owner of an API key has as many as may be. It is an ErrConflict.
	ErrTooManyKeys = fmt.Errorf("too many API keys: %w", ErrConflict)
	// ErrTooManyWebhooks means that the owner of a webhook has as many as may be. It is an ErrConflict.
	ErrTooManyWebhooks = fmt.Errorf("too many webhooks: %w", ErrConflict)
	// ErrNoDelivery means that the webhook has no such delivery. It is an ErrNotFound. ErrWebhookDisabled means that
	// nothing is sent to the webhook, and is an ErrConflict.
	ErrNoDelivery      = fmt.Errorf("no such delivery: %w", ErrNotFound)
	ErrWebhookDisabled = fmt.Errorf("webhook is disabled: %w", ErrConflict)
	// ErrTooManyTests means that the webhook was tested several times in the last minute.
	ErrTooManyTests = errors.New("too many tests")
	// ErrPasswordChanged means that the user's password is another one by now. It is an ErrConflict.
	ErrPasswordChanged = fmt.Errorf("password changed: %w", ErrConflict)
	// ErrEmailTaken means that a person from an identity provider has the email of an account that is not known to
	// be theirs. It is an ErrConflict.
	ErrEmailTaken = fmt.Errorf("email has another account: %w", ErrConflict)
	// ErrPlaceholder means that an email cannot be given to an account: see [IsPlaceholder].
	ErrPlaceholder = errors.New("email is in the domain .invalid")
	// ErrNoOwner means that the new owner does not exist, or that the caller may not see it.
	ErrNoOwner = errors.New("no such owner")
	// ErrNoMember means that the user is not a member of the organisation, and ErrNoInvitation that it has
	// no such invitation. Each of them is an ErrNotFound.
	ErrNoMember     = fmt.Errorf("no such member: %w", ErrNotFound)
	ErrNoInvitation = fmt.Errorf("no such invitation: %w", ErrNotFound)
	// ErrOtherEmail means that the invitation is for the account of another email.
	ErrOtherEmail = errors.New("invitation for another email")
	// ErrLoop means that the local target of an allocation leads back to its public port. It is an
	// ErrConflict.
	ErrLoop = fmt.Errorf("local target leads to the allocation itself: %w", ErrConflict)
)

// Names of constraints whose violations have their own errors.
const (
	constraintPort    = "allocations_port_key"
	constraintReplica = "devices_replica_id_fkey"
	constraintTag     = "devices_tag_hash_key"
)

// wrap adds the operation to err and translates errors of the database to those of this package. It is
// the only function that does so.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), translate(err))
}

func translate(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	var pgErr *pq.Error
	if !errors.As(err, &pgErr) {
		return err
	}
	switch {
	case pgErr.Code == pqerror.UniqueViolation && pgErr.Constraint == constraintPort:
		return ErrPortTaken
	case pgErr.Code == pqerror.UniqueViolation && pgErr.Constraint == constraintTag:
		return ErrTagTaken
	case pgErr.Code == pqerror.UniqueViolation:
		return ErrConflict
	case pgErr.Code == pqerror.ForeignKeyViolation && pgErr.Constraint == constraintReplica:
		// Not ErrNotFound, which a caller would take for a deleted device.
		return fmt.Errorf("replica holds no lease: %w", err)
	case pgErr.Code == pqerror.ForeignKeyViolation:
		return ErrNotFound
	}
	return err
}

// Unavailable reports whether err means that the database is unreachable or did not respond in time, as
// opposed to having rejected a statement.
func Unavailable(err error) bool {
	var pgErr *pq.Error
	if errors.As(err, &pgErr) {
		switch pgErr.Code.Class() {
		case pqerror.ClassConnectionException, pqerror.ClassInsufficientResources, pqerror.ClassOperatorIntervention:
			return true
		}
		// A standby, or a server that became read-only because its disk is full.
		return pgErr.Code == pqerror.ReadOnlySQLTransaction
	}
	var netErr net.Error
	var unconnected connectError
	return errors.As(err, &netErr) || errors.As(err, &unconnected) ||
		errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

func lostDeadlock(err error) bool {
	var pgErr *pq.Error
	return errors.As(err, &pgErr) &&
		(pgErr.Code == pqerror.TRDeadlockDetected || pgErr.Code == pqerror.TRSerializationFailure)
}
