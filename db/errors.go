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
	// ErrNotFound means that the row is absent, or outside the caller's [Scope].
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the row exists but its state, or another row, stands in the way.
	ErrConflict = errors.New("conflict")
	// ErrPortTaken means that the port asked for belongs to another allocation.
	ErrPortTaken = errors.New("port taken")
	// ErrNoPorts means that no port is left to choose.
	ErrNoPorts = errors.New("no ports left")
	// ErrNoServer means that no tunnel server is online that may be chosen.
	ErrNoServer = errors.New("no tunnel server to choose")
	// ErrCordoned means that the tunnel server takes no new allocations, ErrDraining that it takes no
	// players either, and ErrOffline that it is not connected. Each is an ErrConflict too.
	ErrCordoned = fmt.Errorf("tunnel server is cordoned: %w", ErrConflict)
	ErrDraining = fmt.Errorf("tunnel server drains: %w", ErrConflict)
	ErrOffline  = fmt.Errorf("tunnel server is not online: %w", ErrConflict)
)

// Names of constraints whose violation has a meaning of its own.
const (
	constraintPort    = "allocations_port_key"
	constraintReplica = "devices_replica_id_fkey"
)

// wrap names the operation in err and translates what the database said into the errors of this
// package. It is the one place that does.
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
	case pgErr.Code == pqerror.UniqueViolation:
		return ErrConflict
	case pgErr.Code == pqerror.ForeignKeyViolation && pgErr.Constraint == constraintReplica:
		// Not ErrNotFound: a caller would take it for a deleted device.
		return fmt.Errorf("replica holds no lease: %w", err)
	case pgErr.Code == pqerror.ForeignKeyViolation:
		return ErrNotFound
	}
	return err
}

// Unavailable reports whether err means that the database is out of reach or not answering in
// time, as opposed to having refused a statement.
func Unavailable(err error) bool {
	var pgErr *pq.Error
	if errors.As(err, &pgErr) {
		switch pgErr.Code.Class() {
		case pqerror.ClassConnectionException, pqerror.ClassInsufficientResources, pqerror.ClassOperatorIntervention:
			return true
		}
		// A standby, or a server whose disk is full.
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
