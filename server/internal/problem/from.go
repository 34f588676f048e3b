package problem

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// retryUnavailable is the Retry-After while the database is unavailable. It is short
// because a failover or restart of Postgres takes seconds.
const retryUnavailable = 2 * time.Second

// From translates an error into an Error. It returns an Error unchanged, translates
// the errors of db and net/http, and turns everything else into an internal error,
// which tells the caller nothing about the cause.
func From(err error) *Error {
	var own *Error
	var tooLarge *http.MaxBytesError
	var quota *db.QuotaError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &tooLarge):
		return TooLarge()
	case errors.As(err, &quota):
		return QuotaExceeded(types.QuotaResource(quota.Resource), quota.Limit, quota.Used)
	case errors.Is(err, db.ErrForbidden):
		return Forbidden("Your role in the organisation does not permit this.")
	case errors.Is(err, db.ErrNotFound):
		return NotFound("It does not exist.")
	case errors.Is(err, db.ErrPortTaken):
		return PortTaken(1)
	case errors.Is(err, db.ErrNoPorts):
		return NoPorts(1)
	case errors.Is(err, db.ErrNoServer):
		return &Error{
			Status:     http.StatusServiceUnavailable,
			Code:       types.CodeNoTunnelServer,
			Message:    "No connected tunnel server accepts new allocations for this device.",
			RetryAfter: retryUnavailable,
		}
	case errors.Is(err, db.ErrCordoned):
		return Conflict("The tunnel server is cordoned and accepts no new allocations.")
	case errors.Is(err, db.ErrDraining):
		return Conflict("The tunnel server is draining and accepts no players.")
	case errors.Is(err, db.ErrOffline):
		return Conflict("The tunnel server is not connected.")
	case errors.Is(err, db.ErrLoop):
		return Conflict("The local host and port lead back to the allocation's own public port: name the host and port of the game.")
	case errors.Is(err, db.ErrLastAdmin):
		return Conflict("This is the last admin; make another user an admin first.")
	case errors.Is(err, db.ErrLastOwner):
		return Conflict("The user is the only owner of an organisation; make another member its owner first.")
	case errors.Is(err, db.ErrOwnsDevices):
		return Conflict("The user owns devices; say with devices whether they are deleted or moved.")
	case errors.Is(err, db.ErrUnapproved):
		return Conflict("The device has not been approved yet.")
	case errors.Is(err, db.ErrUnserved):
		return Conflict("Allocations are on a tunnel server that serves one organisation alone; move or delete them first.")
	case errors.Is(err, db.ErrTooManyKeys):
		return Conflict("There are 50 API keys, as many as may be; revoke one that is not needed any more.")
	case errors.Is(err, db.ErrTooManyWebhooks):
		return Conflict("There are 20 webhooks, as many as may be; delete one that is not needed any more.")
	case errors.Is(err, db.ErrPlaceholder):
		return Invalid(Field("email", "must not end in .invalid, where nobody has an email"))
	case errors.Is(err, db.ErrEmailTaken):
		return EmailTaken()
	case errors.Is(err, db.ErrPrecondition):
		return PreconditionFailed()
	case errors.Is(err, db.ErrRepeated):
		return IdempotencyInProgress(retryUnavailable)
	case errors.Is(err, db.ErrConflict):
		return Conflict("The request conflicts with the current state.")
	case errors.Is(err, db.ErrBusy):
		return Unavailable("The panel has many requests to serve.", nil)
	case db.Unavailable(err):
		return Unavailable("The database is unavailable.", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unavailable("The request did not complete in time.", err)
	default:
		return Internal(err)
	}
}
