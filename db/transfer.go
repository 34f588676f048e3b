package db

import (
	"context"
	"database/sql"
	"errors"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// NewOwner is who gets a device with its allocations: exactly one field is set.
//
// Errors: [ErrNoOwner] if the user does not exist, or the scope does not include the organisation;
// [ErrForbidden] if the scope does not manage the organisation; [ErrUnapproved] if the device is not approved;
// [ErrUnserved] if allocations of the device are on a tunnel server that may not serve the new owner, or
// those of others on the device; a [QuotaError] if the new owner would have too much. A scope of everything may
// give ports outside the range beyond the quota.
type NewOwner struct {
	UserID         *int64
	OrganisationID *int64
}

// lock keeps the new owner from being deleted until tx ends, and locks the quota.
func (o NewOwner) lock(ctx context.Context, tx *sqlx.Tx, scope Scope) (quotaHold, error) {
	if err := shareQuotas(ctx, tx); err != nil { // Before the owner.
		return quotaHold{}, err
	}
	var err error
	if o.OrganisationID != nil {
		var id int64
		err = tx.GetContext(ctx, &id,
			`SELECT o.id FROM organisations o WHERE o.id = $4 AND `+manageableOrganisation+` FOR KEY SHARE`,
			scope.args(*o.OrganisationID)...)
		err = scope.refused(ctx, tx, err, organisationRow, *o.OrganisationID)
	} else {
		var id int64
		err = tx.GetContext(ctx, &id, `SELECT id FROM users WHERE id = $1 FOR KEY SHARE`, *o.UserID)
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return quotaHold{}, ErrNoOwner
	case err != nil:
		return quotaHold{}, err
	}
	may := Usage{Devices: 1, Allocations: 1}
	if !scope.All {
		may.PortsOutsideRange = 1
	}
	owner := ownerOf(o.UserID, o.OrganisationID)
	return holdQuota(ctx, tx, may, ofOwner, owner.UserID, owner.OrganisationID)
}

// take gives the owner a device that tx has locked, and notifies the tunnel servers of its allocations, for
// which other rules are in effect now.
func (o NewOwner) take(ctx context.Context, tx *sqlx.Tx, hold quotaHold, id uuid.UUID) error {
	var device struct {
		owner
		Approved bool `db:"approved"`
	}
	err := tx.GetContext(ctx, &device, `SELECT `+ownerColumns+`, d.approved_at IS NOT NULL AS approved FROM devices d WHERE d.id = $1`, id)
	switch {
	case err != nil:
		return err
	case !device.Approved:
		return ErrUnapproved
	}
	_, err = tx.ExecContext(ctx, `UPDATE devices SET owner_id = $2, organisation_id = $3 WHERE id = $1`, id, o.UserID, o.OrganisationID)
	if err != nil {
		return err
	}
	if device.owner != hold.owner {
		if err := hold.checkDevices(ctx, tx, []uuid.UUID{id}); err != nil {
			return err
		}
	}
	var unserved bool
	// Ports that an allocation has left do not count: their players leave.
	err = tx.GetContext(ctx, &unserved,
		`SELECT EXISTS (SELECT 1 FROM allocations a
			JOIN devices c ON c.id = a.device_id
			JOIN devices s ON s.id = a.server_id AND s.organisation_id <> coalesce(c.organisation_id, 0)
			WHERE (a.device_id = $1 OR a.server_id = $1) AND a.retires IS NULL)`, id)
	switch {
	case err != nil:
		return err
	case unserved:
		return ErrUnserved
	}
	return notifyServersOf(ctx, tx, id)
}
