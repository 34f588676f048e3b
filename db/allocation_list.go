package db

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/uuid"
)

// AllocationFilter selects allocations. Of its fields, nil and "" mean any.
type AllocationFilter struct {
	Owner              OwnerFilter // Of the device.
	DeviceID, ServerID *uuid.UUID
	Protocol           string
	Port               *int
	// Status is one of those in the contract, and Target is TargetUnknown, TargetUp or TargetDown, as the panel shows
	// them: a device's report counts only while it is online.
	Status, Target string
	// Search is contained in the name, the public port, the local host with its port, or the device's name, in any case.
	Search string
	// Labels must all match.
	Labels []LabelFilter
}

// IsZero reports whether the filter selects every allocation.
func (f AllocationFilter) IsZero() bool { return reflect.ValueOf(f).IsZero() }

var allocationSorts = map[string]sortKey{
	"id":        {`a.id`, `?::bigint`},
	"name":      lowerName(`a.name`),
	"port":      {`a.port`, `?::integer`},
	"createdAt": {`a.created_at`, `?::timestamptz`},
}

// The conditions that tunnel server and client of an allocation are online. The tunnel servers are few: they are read once.
// IS TRUE keeps the planner from a join, of which it does not know how many rows it has.
const (
	clientOnline = `coalesce(dr.lease_expires_at > now(), false)`
	serverOnline = `(a.server_id IN (SELECT s.id FROM devices s JOIN replicas sr ON sr.id = s.replica_id
		WHERE s.kind = 'server' AND sr.lease_expires_at > now()) IS TRUE)`
	bothOnline = `(` + serverOnline + ` AND ` + clientOnline + `)`

	allocationClients = ` JOIN devices d ON d.id = a.device_id LEFT JOIN replicas dr ON dr.id = d.replica_id`
)

// clientAmong is clientOnline for devices o from some tables, which are all read at once.
func clientAmong(tables string) string {
	return `(a.device_id IN (SELECT o.id` + tables + ` JOIN replicas dr ON dr.id = o.replica_id
		WHERE dr.lease_expires_at > now()) IS TRUE)`
}

// statusConditions are the conditions of each status, which the panel's handlers show by the same rules. The first part
// of each is about single columns, of which the planner knows how common their values are, or that an index has.
var statusConditions = map[string]string{
	"paused":    `NOT a.enabled`,
	"draining":  `a.draining AND a.enabled AND ` + bothOnline,
	"failed":    `(a.server_state = 'failed' OR a.client_state = 'failed') AND a.enabled AND ` + reportedFailed + ` AND NOT (a.draining AND ` + bothOnline + `)`,
	"offline":   `a.enabled AND NOT ` + bothOnline + ` AND NOT ` + reportedFailed,
	"pending":   `(a.server_state = 'pending' OR a.client_state = 'pending') AND a.enabled AND NOT a.draining AND ` + bothOnline + ` AND NOT ` + reportedFailed,
	"listening": `a.server_state = 'ready' AND a.client_state = 'ready' AND a.enabled AND NOT a.draining AND ` + bothOnline,
}

const reportedFailed = `(a.server_state = 'failed' AND ` + serverOnline + ` OR a.client_state = 'failed' AND ` + clientOnline + `)`

// FindAllocations lists the allocations of devices in scope that match a filter, sorted by id, name, port or createdAt.
func (d *DB) FindAllocations(ctx context.Context, scope Scope, filter AllocationFilter, l Listing) ([]Allocation, error) {
	query, args, err := findAllocationsQuery(scope, filter, l)
	if err != nil {
		return nil, wrap(err, "find allocations")
	}
	var allocations []Allocation
	err = d.search(ctx, scope.All && filter.isWide(), func(ctx context.Context) error {
		return d.requests.SelectContext(ctx, &allocations, query, args...)
	})
	return allocations, wrap(err, "find allocations")
}

// isWide reports whether those of everybody may all have to be looked at to find nothing. Few are paused or drain, and an
// index has them.
func (f AllocationFilter) isWide() bool {
	if f.DeviceID != nil || f.Owner != (OwnerFilter{}) {
		return false
	}
	return f.Search != "" || len(f.Labels) > 0 || f.Target != "" || f.Status != "" && f.Status != "paused" && f.Status != "draining"
}

// findAllocationsQuery finds the ids of a page before it reads its allocations. Those of a tenant are found by the index of
// each device.
func findAllocationsQuery(scope Scope, filter AllocationFilter, l Listing) (query string, args []any, err error) {
	s := filter.whereDevice(scope)
	s.where(`a.retires IS NULL`)
	if filter.ServerID != nil {
		s.where(`a.server_id = ?::uuid`, *filter.ServerID)
	}
	if filter.Protocol != "" {
		s.where(`a.protocol = ?::text`, filter.Protocol)
	}
	if filter.Port != nil {
		s.where(`a.port = ?::integer`, *filter.Port)
	}
	if err := s.whereLabels(filter.Labels); err != nil {
		return "", nil, err
	}
	from := ` FROM allocations a`
	online := func(condition string) string { return condition }
	switch {
	case filter.Status == "" && filter.Target == "":
	case scope.All && filter.Status != "offline" && filter.Target != TargetUnknown: // Those of a page are enough.
		from += allocationClients
	default:
		online = strings.NewReplacer(clientOnline, clientAmong(seenDevices(scope))).Replace
	}
	if filter.Status != "" {
		condition, ok := statusConditions[filter.Status]
		if !ok {
			return "", nil, fmt.Errorf("no status %q", filter.Status)
		}
		s.where(online(condition))
	}
	switch filter.Target {
	case "":
	case TargetUnknown:
		s.where(online(`(a.target = ?::text OR NOT `+clientOnline+`)`), filter.Target)
	default:
		s.where(online(`a.target = ?::text AND `+clientOnline), filter.Target)
	}
	order, limit, err := s.page(l, allocationSorts, allocationSorts["id"])
	if err != nil {
		return "", nil, err
	}
	return allocationQuery + ` WHERE a.id IN (SELECT a.id` + from + ` WHERE ` + s.all() + order + limit + `)` + order, s.args, nil
}

// whereDevice returns a selection with the conditions on the device. Each part reads every device once, not once for each
// allocation.
func (f AllocationFilter) whereDevice(scope Scope) selection {
	var s selection
	seen := seenDevices(scope)
	if !scope.All {
		s.args = scope.args()
	}
	if f.DeviceID != nil {
		s.where(`o.id = ?::uuid`, *f.DeviceID)
	}
	f.Owner.where(&s, `o`)
	switch {
	case len(s.conditions) > 0:
		s.conditions = []string{`a.device_id = ANY (ARRAY(SELECT o.id` + seen + ` WHERE ` + s.all() + `))`}
	case !scope.All:
		s.where(`a.device_id = ANY (ARRAY(SELECT v.id FROM ` + visibleDevices + ` AS v))`)
	}
	if f.Search != "" {
		s.where(`(`+contains(`a.search`)+` OR a.device_id IN (SELECT o.id`+seen+` WHERE `+contains(`lower(o.name) COLLATE "C"`)+`))`,
			f.Search, f.Search)
	}
	return s
}

// seenDevices are the devices o in a scope.
func seenDevices(scope Scope) string {
	if scope.All {
		return ` FROM devices o`
	}
	return ` FROM ` + visibleDevices + ` AS v JOIN devices o ON o.id = v.id`
}
