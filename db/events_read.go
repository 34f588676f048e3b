package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
)

// DevicesByID returns devices whatever their owner, in no order. Those that do not exist are missing.
func (d *DB) DevicesByID(ctx context.Context, ids []uuid.UUID) ([]Device, error) {
	var devices []Device
	err := d.devices.SelectContext(ctx, &devices,
		`SELECT `+deviceColumns+` FROM devices d WHERE d.id = ANY ($1::uuid[])`, uuidArray(ids))
	return devices, wrap(err, "devices by id")
}

// OwnedAllocation is an allocation with the owner of its device.
type OwnedAllocation struct {
	Allocation
	OwnerID *int64 `db:"owner_id"` // nil if an organisation owns it, or if it has no owner
}

// AllocationsByID returns allocations whatever their owner, in no order. Those that do not exist are missing.
func (d *DB) AllocationsByID(ctx context.Context, ids []int64) ([]OwnedAllocation, error) {
	var allocations []OwnedAllocation
	err := d.devices.SelectContext(ctx, &allocations,
		`SELECT d.owner_id, `+allocationColumns+allocationTables+` WHERE a.id = ANY ($1) AND a.retires IS NULL`, pq.Array(ids))
	return allocations, wrap(err, "allocations by id")
}

// Followers are callers whose requests go on for long.
type Followers struct {
	Sessions []uuid.UUID
	Keys     []int64 // Of users and organisations.
	Users    []int64
}

// FollowersNow is what has become of Followers. Those that may not go on are missing.
type FollowersNow struct {
	Sessions map[uuid.UUID]bool
	Keys     map[int64]bool
	Users    map[int64]FollowingUser
}

// FollowingUser is a user who is not suspended.
type FollowingUser struct {
	Role          string
	Organisations []int64 // Of which the user is a member, in ascending order.
}

// followersQuery reads what has become of sessions $1, keys $2 and users $3 at $4. The conditions are those of
// [DB.SessionUser] and apiKeyQuery; users have rows of their own.
const followersQuery = `
	SELECT 'session' AS kind, s.id AS session, 0::bigint AS id, '' AS role, '{}'::bigint[] AS organisations
	FROM sessions s WHERE s.id = ANY ($1::uuid[]) AND s.expires_at > $4
	UNION ALL
	SELECT 'key', NULL, k.id, '', '{}' FROM api_keys k
	WHERE k.id = ANY ($2::bigint[]) AND (k.expires_at IS NULL OR k.expires_at > $4)
		AND (k.organisation_id IS NULL OR EXISTS (SELECT FROM organisation_members m JOIN users o ON o.id = m.user_id
			WHERE m.organisation_id = k.organisation_id AND m.role IN ('owner', 'admin') AND NOT o.suspended))
	UNION ALL
	SELECT 'user', NULL, u.id, u.role,
		ARRAY(SELECT m.organisation_id FROM organisation_members m WHERE m.user_id = u.id ORDER BY m.organisation_id)
	FROM users u WHERE u.id = ANY ($3::bigint[]) AND NOT u.suspended`

// FollowersNow returns which of the callers may go on at now, and what they may see.
func (d *DB) FollowersNow(ctx context.Context, of Followers, now time.Time) (FollowersNow, error) {
	var rows []struct {
		Kind          string        `db:"kind"`
		Session       uuid.NullUUID `db:"session"`
		ID            int64         `db:"id"`
		Role          string        `db:"role"`
		Organisations pq.Int64Array `db:"organisations"`
	}
	err := d.devices.SelectContext(ctx, &rows, followersQuery,
		uuidArray(of.Sessions), pq.Int64Array(append([]int64{}, of.Keys...)), pq.Int64Array(append([]int64{}, of.Users...)), stamp(now))
	found := FollowersNow{Sessions: map[uuid.UUID]bool{}, Keys: map[int64]bool{}, Users: map[int64]FollowingUser{}}
	for _, row := range rows {
		switch row.Kind {
		case "session":
			found.Sessions[row.Session.UUID] = true
		case "key":
			found.Keys[row.ID] = true
		default:
			found.Users[row.ID] = FollowingUser{row.Role, row.Organisations}
		}
	}
	return found, wrap(err, "followers")
}
