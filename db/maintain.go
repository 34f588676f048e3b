package db

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
)

// maintenanceLock is the advisory lock of [DB.Maintain]: "ecli" in ASCII, a number that no other user
// of the database is likely to use.
const maintenanceLock = 0x65636c69

// deadReplicaRetention is how long a replica with an expired lease is kept if no device refers to it.
const deadReplicaRetention = time.Hour

// Maintenance configures [DB.Maintain].
type Maintenance struct {
	// EnrollmentsBefore is the time before which pending devices and logins of terminals must have expired to be
	// deleted. Until then, a poll can report that they have expired.
	EnrollmentsBefore time.Time
	// ExpiredBefore is the time before which sessions, password links, invitations, rate-limit windows and
	// places of logins must have ended to be deleted. They no longer have an effect; deleting them keeps their tables small.
	ExpiredBefore time.Time
	Keys          KeyRotation
}

// MaintenanceResult is what [DB.Maintain] did.
type MaintenanceResult struct {
	Enrollments int64 // Pending devices deleted.
	Keys        KeyChanges
}

// Maintain deletes expired rows and rotates signing keys. If several replicas call it at the same time,
// one runs and the others return at once with ran false.
func (d *DB) Maintain(ctx context.Context, m Maintenance) (done MaintenanceResult, ran bool, err error) {
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		done, ran = MaintenanceResult{}, false
		// Released with the transaction, however it or the replica ends.
		if err := tx.GetContext(ctx, &ran, `SELECT pg_try_advisory_xact_lock($1)`, int64(maintenanceLock)); err != nil || !ran {
			return err
		}
		var err error
		if done.Enrollments, err = deleteExpiredDevices(ctx, tx, m.EnrollmentsBefore); err != nil {
			return err
		}
		if err = deleteExpiredLogins(ctx, tx, m.EnrollmentsBefore); err != nil {
			return err
		}
		for _, expired := range []struct {
			statement string
			before    time.Time
		}{
			{`DELETE FROM sessions WHERE expires_at < $1`, m.ExpiredBefore},
			{`DELETE FROM password_links WHERE expires_at < $1`, m.ExpiredBefore},
			{`DELETE FROM invitations WHERE expires_at < $1`, m.ExpiredBefore},
			{`DELETE FROM rate_limits WHERE resets_at < $1`, m.ExpiredBefore},
			{`DELETE FROM login_places WHERE used_at < $1`, m.ExpiredBefore.Add(-loginPlaceLifetime)},
		} {
			if _, err := tx.ExecContext(ctx, expired.statement, stamp(expired.before)); err != nil {
				return err
			}
		}
		if err := deleteDeadReplicas(ctx, tx); err != nil {
			return err
		}
		if err := forgetPlayers(ctx, tx); err != nil {
			return err
		}
		done.Keys, err = d.rotateKeys(ctx, tx, m.Keys)
		return err
	})
	if err != nil {
		return MaintenanceResult{}, false, wrap(err, "maintain database")
	}
	return done, ran, nil
}

func deleteExpiredDevices(ctx context.Context, tx *sqlx.Tx, before time.Time) (int64, error) {
	// Rows that are being approved or polled right now can wait.
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
