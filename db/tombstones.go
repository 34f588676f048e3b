package db

import (
	"context"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// PanelID reads the identity of the panel. It is made with the database, and a backup and its
// restore keep it.
func (d *DB) PanelID(ctx context.Context) (uuid.UUID, error) {
	var id uuid.UUID
	err := d.devices.GetContext(ctx, &id, `SELECT panel_id FROM settings`)
	return id, wrap(err, "panel id")
}

// DeviceDeleted reports whether a device was deleted. A device that neither exists nor was deleted
// is unknown to this database, which may be about to be replaced by a backup.
func (d *DB) DeviceDeleted(ctx context.Context, id uuid.UUID) (bool, error) {
	var deleted bool
	err := d.requests.GetContext(ctx, &deleted, `SELECT EXISTS (SELECT 1 FROM deleted_devices WHERE id = $1)`, id)
	return deleted, wrap(err, "tombstone of device %s", id)
}

// EnrollmentDenied reports whether the device with a hash of a device code was deleted before its
// enrollment had expired.
func (d *DB) EnrollmentDenied(ctx context.Context, codeHash []byte) (bool, error) {
	var denied bool
	err := d.requests.GetContext(ctx, &denied, `SELECT EXISTS (SELECT 1 FROM deleted_devices WHERE code_hash = $1)`, codeHash)
	return denied, wrap(err, "tombstone of enrollment")
}

// SigningKeyRevoked reports whether a signing key was revoked, as opposed to never known.
func (d *DB) SigningKeyRevoked(ctx context.Context, id string) (bool, error) {
	var revoked bool
	err := d.requests.GetContext(ctx, &revoked, `SELECT EXISTS (SELECT 1 FROM revoked_signing_keys WHERE id = $1)`, id)
	return revoked, wrap(err, "tombstone of signing key")
}

// buryDevices records that devices, which still exist, are deleted.
func buryDevices(ctx context.Context, tx *sqlx.Tx, ids []uuid.UUID) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO deleted_devices (id, code_hash)
		SELECT id, CASE WHEN approved_at IS NOT NULL OR expires_at > now() THEN coalesce(code_hash, spent_code_hash) END
		FROM devices WHERE id = ANY ($1) ON CONFLICT (id) DO NOTHING`, pq.Array(ids))
	return err
}
