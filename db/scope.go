package db

import (
	"context"
	"database/sql"
	"errors"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// Scope is the set of rows that a caller may see, and of those that the caller manages, which are among
// them. A row that the caller may not see is [ErrNotFound], as if it did not exist. Changing one that the
// caller sees and does not manage is [ErrForbidden]. The zero Scope is empty.
type Scope struct {
	// All includes every row, managed.
	All bool
	// UserID includes the organisations of which the user is a member, their devices, and the devices'
	// allocations; managed are those of organisations in which the user is an owner or admin, and the
	// devices that the user owns. 0 means no user.
	UserID int64
	// OrganisationID includes the organisation, its devices and their allocations, managed. It has no effect
	// with a UserID. 0 means no organisation.
	OrganisationID int64
	// DeviceID includes the device and its allocations, managed. uuid.Nil means no device.
	DeviceID uuid.UUID
}

// The conditions that device d is in the scope whose args are $1 to $3, and that it is managed.
const (
	visible    = `($1::boolean OR d.owner_id = $2::bigint OR d.organisation_id = -$2::bigint OR d.id = $3::uuid OR EXISTS (` + membersOfOwner + `))`
	manageable = `($1::boolean OR d.owner_id = $2::bigint OR d.organisation_id = -$2::bigint OR d.id = $3::uuid OR EXISTS (` + membersOfOwner + ` AND ` + managing + `))`

	membersOfOwner = `SELECT 1 FROM organisation_members m WHERE m.organisation_id = d.organisation_id AND m.user_id = $2::bigint`
	managing       = `m.role IN ('owner', 'admin')`
)

// The conditions that organisation o is in the scope whose args are $1 to $3, and that it is managed. A
// device sees none; $3 only has to be mentioned.
const (
	visibleOrganisation    = `($1::boolean OR o.id = -$2::bigint OR EXISTS (` + membersOf + `))`
	manageableOrganisation = `($1::boolean OR o.id = -$2::bigint OR EXISTS (` + membersOf + ` AND ` + managing + `))`

	membersOf = `SELECT 1 FROM organisation_members m WHERE m.organisation_id = o.id AND m.user_id = $2::bigint AND $3::uuid IS NULL`
)

// The rows with the id $4 that [Scope.refused] looks for.
const (
	deviceRow       = `devices d WHERE d.id = $4 AND ` + visible
	allocationRow   = `allocations a JOIN devices d ON d.id = a.device_id WHERE a.id = $4 AND a.retires IS NULL AND ` + visible
	organisationRow = `organisations o WHERE o.id = $4 AND ` + visibleOrganisation
)

// visibleDevices are the devices in a scope that is not All, each found by an index. The scope's args are $1 to
// $3; $1 only has to be mentioned.
const visibleDevices = `(SELECT x.id FROM devices x WHERE x.owner_id = $2::bigint AND NOT $1::boolean
	UNION ALL SELECT x.id FROM organisation_members m JOIN devices x ON x.organisation_id = m.organisation_id WHERE m.user_id = $2::bigint
	UNION ALL SELECT x.id FROM devices x WHERE x.organisation_id = -$2::bigint
	UNION ALL SELECT $3::uuid)`

// args returns the arguments of the conditions, followed by more from $4 on.
func (s Scope) args(more ...any) []any {
	args := []any{s.All, s.account(), nil}
	if s.DeviceID != uuid.Nil {
		args[2] = s.DeviceID
	}
	return append(args, more...)
}

// refused returns the error of a statement on a managed row: if it found none, ErrForbidden where the
// caller sees the row.
func (s Scope) refused(ctx context.Context, tx *sqlx.Tx, err error, row string, id any) error {
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var seen bool
	err = tx.GetContext(ctx, &seen, `SELECT true FROM `+row, s.args(id)...)
	if err == nil {
		return ErrForbidden
	}
	return err
}

// account returns the argument of conditions for whose account the scope is: the id of the user, which is
// positive, that of the organisation as a negative number, or nil.
func (s Scope) account() any {
	switch {
	case s.UserID != 0:
		return s.UserID
	case s.OrganisationID != 0:
		return -s.OrganisationID
	default:
		return nil
	}
}
