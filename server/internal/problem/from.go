package problem

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// retryUnavailable is what a client is told to wait while the database is out
// of reach: short, since a failover or restart of Postgres takes seconds.
const retryUnavailable = 2 * time.Second

// From translates any error into the answer it deserves: an Error as it is, the
// errors of db and net/http by what they mean, everything else as an internal
// error that tells the caller nothing.
func From(err error) *Error {
	var own *Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &tooLarge):
		return TooLarge()
	case errors.Is(err, db.ErrNotFound):
		return NotFound("There is no such thing.")
	case errors.Is(err, db.ErrPortTaken):
		return PortTaken()
	case errors.Is(err, db.ErrNoPorts):
		return &Error{
			Status:  http.StatusServiceUnavailable,
			Code:    types.CodeNoPortsAvailable,
			Message: "The tunnel server has no free port left.",
		}
	case errors.Is(err, db.ErrNoServer):
		return &Error{
			Status:     http.StatusServiceUnavailable,
			Code:       types.CodeNoTunnelServer,
			Message:    "No tunnel server is connected that takes new allocations of this device.",
			RetryAfter: retryUnavailable,
		}
	case errors.Is(err, db.ErrCordoned):
		return Conflict("That tunnel server takes no new allocations: it is cordoned.")
	case errors.Is(err, db.ErrDraining):
		return Conflict("That tunnel server takes no players: it is being drained.")
	case errors.Is(err, db.ErrOffline):
		return Conflict("That tunnel server is not connected.")
	case errors.Is(err, db.ErrConflict):
		return Conflict("The request does not fit the state things are in.")
	case db.Unavailable(err):
		return Unavailable("The database is out of reach; try again shortly.", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unavailable("The request was not finished in time.", err)
	default:
		return Internal(err)
	}
}
