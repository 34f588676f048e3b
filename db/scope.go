package db

import "github.com/google/uuid"

// Scope says whose rows a caller may see. A row outside it is [ErrNotFound], as if absent. The zero
// Scope sees nothing.
type Scope struct {
	// All sees every row.
	All bool
	// UserID sees the devices the user owns and those of organisations where the user is owner or
	// admin, with their allocations. 0 means no user.
	UserID int64
	// DeviceID sees that device and its allocations. uuid.Nil means no device.
	DeviceID uuid.UUID
}

// visible is the condition that device d lies in the scope whose args are $1 to $3.
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
