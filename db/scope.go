package db

import "github.com/google/uuid"

// Scope is the set of rows that a caller may see. A row outside it is [ErrNotFound], as if it did not
// exist. The zero Scope is empty.
type Scope struct {
	// All includes every row.
	All bool
	// UserID includes the devices that the user owns, those of organisations in which the user is an
	// owner or admin, and their allocations. 0 means no user.
	UserID int64
	// DeviceID includes the device and its allocations. uuid.Nil means no device.
	DeviceID uuid.UUID
}

// visible is the condition that device d is in the scope whose args are $1 to $3.
const visible = `($1::boolean OR d.owner_id = $2::bigint OR d.id = $3::uuid OR EXISTS (
	SELECT 1 FROM organisation_members m
	WHERE m.organisation_id = d.organisation_id AND m.user_id = $2::bigint AND m.role IN ('owner', 'admin')))`

// args returns the arguments of visible, followed by more from $4 on.
func (s Scope) args(more ...any) []any {
	args := []any{s.All, nil, nil}
	if s.UserID != 0 {
		args[1] = s.UserID
	}
	if s.DeviceID != uuid.Nil {
		args[2] = s.DeviceID
	}
	return append(args, more...)
}
