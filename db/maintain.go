package db

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
)

// maintenanceLock is the advisory lock of [DB.Maintain]; any number that nobody else on the
// database uses ("ecli" in ASCII).
const maintenanceLock = 0x65636c69

// deadReplicaRetention is how long a replica whose lease ran out is remembered, if no device needs
// it to tell when it was last seen.
const deadReplicaRetention = time.Hour

// Maintenance is what the database needs done now and then, by any one replica.
type Maintenance struct {
	// EnrollmentsBefore is when pending devices must have expired to be deleted; until then a poll
	// can still tell that they expired.
	EnrollmentsBefore time.Time
	// ExpiredBefore is when sessions and rate-limit windows must have ended to be deleted. They have
	// no effect any more; this keeps their tables small.
	ExpiredBefore time.Time
	Keys          KeyRotation
}

// Maintained is what was done.
type Maintained struct {
	Enrollments int64 // Pending devices deleted.
	Keys        KeyChanges
}

// Maintain deletes what has expired and rotates signing keys. Of replicas that call it at the same
// time one does, and the others return at once with ran false.
func (d *DB) Maintain(ctx context.Context, m Maintenance) (done Maintained, ran bool, err error) {
	err = d.tx(ctx, func(tx *sqlx.Tx) error {
		done, ran = Maintained{}, false
		// Released with the transaction, however it or the replica ends.
		if err := tx.GetContext(ctx, &ran, `SELECT pg_try_advisory_xact_lock($1)`, int64(maintenanceLock)); err != nil || !ran {
			return err
		}
		var err error
		if done.Enrollments, err = deleteExpiredDevices(ctx, tx, m.EnrollmentsBefore); err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM sessions WHERE expires_at < $1`,
			`DELETE FROM rate_limits WHERE resets_at < $1`,
		} {
			if _, err := tx.ExecContext(ctx, statement, stamp(m.ExpiredBefore)); err != nil {
				return err
			}
		}
		if err := deleteDeadReplicas(ctx, tx); err != nil {
			return err
		}
		done.Keys, err = rotateKeys(ctx, tx, m.Keys)
		return err
	})
	if err != nil {
		return Maintained{}, false, wrap(err, "maintain database")
	}
	return done, ran, nil
}

func deleteExpiredDevices(ctx context.Context, tx *sqlx.Tx, before time.Time) (int64, error) {
	// Those that are being approved or polled this moment can wait.
	result, err := tx.ExecContext(ctx,
		`DELETE FROM devices WHERE id IN (
			SELECT id FROM devices WHERE approved_at IS NULL AND expires_at < $1 FOR UPDATE SKIP LOCKED)`,
		stamp(before))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func deleteDeadReplicas(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx,
		`DELETE FROM replicas WHERE id IN (
			SELECT r.id FROM replicas r WHERE r.lease_expires_at < now() - $1 * interval '1 second'
				AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.replica_id = r.id)
			FOR UPDATE SKIP LOCKED)`,
		deadReplicaRetention.Seconds())
	return err
}
