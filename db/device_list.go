package db

import "context"

// DeviceFilter selects devices. Of its fields, nil and "" mean any.
type DeviceFilter struct {
	Owner            OwnerFilter
	Kind             string
	Online, Approved *bool
	// Search is contained in the name, the platform or the public host, in any case.
	Search string
}

// The sort key lastSeenAt is infinity for a device that is online and -infinity for one that never was, so that a page
// does not depend on when the last one was read.
var deviceSorts = map[string]sortKey{
	"createdAt": {`d.created_at`, `?::timestamptz`},
	"name":      lowerName(`d.name`),
	"lastSeenAt": {
		`CASE WHEN lr.lease_expires_at > now() THEN 'infinity' ELSE coalesce(greatest(d.last_seen_at, lr.renewed_at), '-infinity') END`,
		`?::timestamptz`,
	},
}

// deviceTables are devices d with the replica lr that has or had their control channel, which is joined once for all.
const deviceTables = ` FROM devices d LEFT JOIN replicas lr ON lr.id = d.replica_id`

// FindDevices lists the devices in scope that match a filter, sorted by createdAt, name or lastSeenAt.
func (d *DB) FindDevices(ctx context.Context, scope Scope, filter DeviceFilter, l Listing) ([]Device, error) {
	query, args, err := findDevicesQuery(scope, filter, l)
	if err != nil {
		return nil, wrap(err, "find devices")
	}
	var devices []Device
	err = d.search(ctx, scope.All && filter.isWide(l.Sort), func(ctx context.Context) error {
		return d.requests.SelectContext(ctx, &devices, query, args...)
	})
	return devices, wrap(err, "find devices")
}

// isWide reports whether those of everybody may all have to be looked at for a page in some order.
func (f DeviceFilter) isWide(sort Sort) bool {
	if f.Owner != (OwnerFilter{}) {
		return false
	}
	return f.Search != "" || f.Kind != "" || f.Online != nil || f.Approved != nil || sort.By == "lastSeenAt"
}

// findDevicesQuery finds the ids of a page before it reads its devices.
func findDevicesQuery(scope Scope, filter DeviceFilter, l Listing) (query string, args []any, err error) {
	var s selection
	if scope.All {
		s.where(`true`)
	} else {
		s.args = scope.args()
		s.where(`d.id = ANY (ARRAY(SELECT v.id FROM ` + visibleDevices + ` AS v))`)
	}
	filter.Owner.where(&s, `d`)
	if filter.Kind != "" {
		s.where(`d.kind = ?::text`, filter.Kind)
	}
	if filter.Online != nil {
		// Those that are alive are few: they are read once.
		is := ` IS TRUE`
		if !*filter.Online {
			is = ` IS NOT TRUE`
		}
		s.where(`(d.replica_id = ANY (ARRAY(SELECT r.id FROM replicas r WHERE r.lease_expires_at > now())))` + is)
	}
	if filter.Approved != nil {
		s.where(`(d.approved_at IS NOT NULL) = ?::boolean`, *filter.Approved)
	}
	if filter.Search != "" {
		s.where(contains(`d.search`), filter.Search)
	}
	order, limit, err := s.page(l, deviceSorts, sortKey{`d.id`, `?::uuid`})
	if err != nil {
		return "", nil, err
	}
	return `SELECT ` + deviceColumns + deviceTables + ` WHERE d.id IN (SELECT d.id` + deviceTables + ` WHERE ` + s.all() + order + limit + `)` + order,
		s.args, nil
}
