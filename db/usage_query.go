package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// UsageResolution is the length of the times of which [DB.Usage] returns the sums.
type UsageResolution string

// The resolutions. Hours and days are those of UTC.
const (
	UsageMinutes UsageResolution = "minute"
	UsageHours   UsageResolution = "hour"
	UsageDays    UsageResolution = "day"
)

// Length is the length of one time.
func (r UsageResolution) Length() time.Duration {
	switch r {
	case UsageMinutes:
		return time.Minute
	case UsageHours:
		return time.Hour
	default:
		return 24 * time.Hour
	}
}

// UsageGrouping is by what [DB.Usage] returns sums.
type UsageGrouping string

// The groupings.
const (
	UsageByNone         UsageGrouping = "none"
	UsageByAllocation   UsageGrouping = "allocation"
	UsageByDevice       UsageGrouping = "device"
	UsageByOwner        UsageGrouping = "owner"
	UsageByOrganisation UsageGrouping = "organisation"
)

// groups are the expressions of a [UsageRow]'s group: allocation_id, device_id, owner_id, organisation_id.
func (g UsageGrouping) groups() [4]string {
	none := [4]string{"NULL::bigint", "NULL::uuid", "NULL::bigint", "NULL::bigint"}
	switch g {
	case UsageByAllocation:
		return [4]string{"s.allocation_id", "s.device_id", none[2], none[3]}
	case UsageByDevice:
		none[1] = "s.device_id"
	case UsageByOwner:
		none[2], none[3] = "nullif(s.owner_id, 0)", "nullif(s.organisation_id, 0)"
	case UsageByOrganisation:
		none[3] = "nullif(s.organisation_id, 0)"
	}
	return none
}

// UsageQuery selects usage.
type UsageQuery struct {
	By         UsageGrouping   // The zero value is UsageByNone.
	Resolution UsageResolution // Required.
	// From and To are the first time and the end. Times that begin before From are left out.
	From, To time.Time
	// AllocationID, DeviceID, UserID and OrganisationID are whose usage: 0 and uuid.Nil are anybody's.
	AllocationID   int64
	DeviceID       uuid.UUID
	UserID         int64
	OrganisationID int64
	// Limit is the maximum number of rows. Required.
	Limit int
}

// UsageRow is the sum of a group in a time.
type UsageRow struct {
	// AllocationID, DeviceID, OwnerID and OrganisationID are the group; nil is none.
	AllocationID   *int64     `db:"allocation_id"`
	DeviceID       *uuid.UUID `db:"device_id"`
	OwnerID        *int64     `db:"owner_id"`
	OrganisationID *int64     `db:"organisation_id"`

	At time.Time `db:"at"` // When the time began.
	UsageCounts
	// PeakPlayers is a sum of the peaks of the group's allocations, which need not have been at the same moment.
	PeakPlayers int64 `db:"peak_players"`
}

// The conditions on subjects s that are allocations, and on those of which sums are kept.
var (
	usageOfAllocations = "s.allocation_id > 0"
	usageOfOwners      = fmt.Sprintf("s.allocation_id = %d", ownerUsage)
	usageOfSite        = fmt.Sprintf("s.allocation_id = %d", siteUsage)
)

// level returns which subjects have what is asked for in the fewest rows.
func (q UsageQuery) level(scope Scope) string {
	switch {
	case q.AllocationID != 0 || q.DeviceID != uuid.Nil || scope.DeviceID != uuid.Nil,
		q.By == UsageByAllocation, q.By == UsageByDevice:
		return usageOfAllocations
	case scope.All && q.UserID == 0 && q.OrganisationID == 0 && q.By.groups() == UsageByNone.groups():
		return usageOfSite
	default:
		return usageOfOwners
	}
}

// Usage returns the usage of those in scope by group and time: that of the owner at that time. Without rows there was
// none, or it is not kept any more.
func (d *DB) Usage(ctx context.Context, scope Scope, q UsageQuery) ([]UsageRow, error) {
	groups := q.By.groups()
	var device any
	if q.DeviceID != uuid.Nil {
		device = q.DeviceID
	}
	// What is of few is read for one after the other.
	level, fence := q.level(scope), ""
	if !scope.All || q.AllocationID != 0 || device != nil || q.UserID != 0 || q.OrganisationID != 0 || level == usageOfSite {
		fence = " OFFSET 0"
	}
	var rows []UsageRow
	err := d.requests.SelectContext(ctx, &rows, fmt.Sprintf(
		`WITH subjects AS MATERIALIZED (
			SELECT s.id, s.allocation_id, s.device_id, s.owner_id, s.organisation_id FROM usage_subjects s
			WHERE %[6]s AND ($1::boolean OR s.owner_id = $2::bigint OR s.organisation_id = -$2::bigint OR s.device_id = $3::uuid
					OR s.organisation_id IN (SELECT m.organisation_id FROM organisation_members m WHERE m.user_id = $2::bigint))
				AND ($4::bigint = 0 OR s.allocation_id = $4) AND ($5::uuid IS NULL OR s.device_id = $5)
				AND ($6::bigint = 0 OR s.owner_id = $6) AND ($7::bigint = 0 OR s.organisation_id = $7))
		SELECT %[1]s AS allocation_id, %[2]s AS device_id, %[3]s AS owner_id, %[4]s AS organisation_id, u.at,
			sum(u.download_bytes)::bigint AS download_bytes, sum(u.upload_bytes)::bigint AS upload_bytes,
			sum(u.download_datagrams)::bigint AS download_datagrams, sum(u.upload_datagrams)::bigint AS upload_datagrams,
			sum(u.joins)::bigint AS joins, sum(u.peak_players) AS peak_players
		FROM subjects s CROSS JOIN LATERAL (
			SELECT * FROM usage_%[5]ss u WHERE u.subject_id = s.id AND u.at >= $8 AND u.at < $9%[7]s) u
		GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 LIMIT $10`,
		groups[0], groups[1], groups[2], groups[3], q.Resolution, level, fence),
		scope.args(q.AllocationID, device, q.UserID, q.OrganisationID, stamp(q.From), stamp(q.To), q.Limit)...)
	return rows, wrap(err, "usage")
}
