package db

import (
	"context"
	"net/netip"

	"github.com/jmoiron/sqlx"
)

// EnrollmentByTag returns the device whose enrollment was the last to be started with a tag, by the tag's hash, whoever
// owns it. userID is the user who asks, 0 for none.
func (d *DB) EnrollmentByTag(ctx context.Context, hash []byte, userID int64) (Enrollment, error) {
	var enrollment Enrollment
	err := d.requests.GetContext(ctx, &enrollment, selectEnrollment+` WHERE d.tag_hash = $1`, hash, userID)
	return enrollment, wrap(err, "enrollment by tag")
}

// freeTag takes the tag of a device that is about to be inserted from an earlier enrollment, which is approved, has
// expired or was started from device.TagFrom. One that waits and was started elsewhere keeps it.
func freeTag(ctx context.Context, tx *sqlx.Tx, device NewDevice) error {
	if device.TagHash == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`UPDATE devices SET tag_hash = NULL
		WHERE tag_hash = $1 AND (approved_at IS NOT NULL OR expires_at <= $2 OR started_address <<= nullif($3, '')::cidr)`,
		device.TagHash, stamp(device.CreatedAt), prefixText(device.TagFrom))
	return err
}

// prefixText returns "" for the zero Prefix.
func prefixText(prefix netip.Prefix) string {
	if !prefix.IsValid() {
		return ""
	}
	return prefix.String()
}
