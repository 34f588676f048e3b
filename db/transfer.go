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
// those of others on the device.
type NewOwner struct {
	UserID         *int64
	OrganisationID *int64
}

// lock keeps the new owner from being deleted until tx ends.
func (o NewOwner) lock(ctx context.Context, tx *sqlx.Tx, scope Scope) error {
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
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoOwner
	}
	return err
}

// take gives the owner a device that tx has locked, and notifies the tunnel servers of its allocations, for
// which other rules are in effect now.
func (o NewOwner) take(ctx context.Context, tx *sqlx.Tx, id uuid.UUID) error {
	var approved bool
	err := tx.GetContext(ctx, &approved,
		`UPDATE devices SET owner_id = $2, organisation_id = $3 WHERE id = $1 RETURNING approved_at IS NOT NULL`,
		id, o.UserID, o.OrganisationID)
	switch {
	case err != nil:
		return err
	case !approved:
		return ErrUnapproved
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
