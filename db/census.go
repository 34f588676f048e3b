package db

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
)

// Lane is a share of the connections that no other can take.
type Lane string

// The lanes of a [DB].
const (
	LaneRequests Lane = "requests" // What people and unauthenticated callers ask for.
	LaneDevices  Lane = "devices"  // Control channels, desired state and upkeep.
	LaneLeases   Lane = "leases"   // Leases of replicas, and pings.
)

// PoolStats are statistics of the connections.
type PoolStats struct {
	Max, InUse, Idle int           // Current number of connections.
	Waits            int64         // Number of waits for a connection since the DB was opened.
	Waited           time.Duration // Total time of these waits.
	Lanes            map[Lane]LaneStats
}

// PoolStats returns statistics of the connections. It does not query the database.
func (d *DB) PoolStats() PoolStats {
	stats := PoolStats{Lanes: map[Lane]LaneStats{
		LaneRequests: d.requests.turns.stats(),
		LaneDevices:  d.devices.turns.stats(),
		LaneLeases:   d.leases.turns.stats(),
	}}
	for _, pool := range []*sqlx.DB{d.requests.DB, d.devices.DB} {
		s := pool.Stats()
		stats.Max, stats.InUse, stats.Idle = stats.Max+s.MaxOpenConnections, stats.InUse+s.InUse, stats.Idle+s.Idle
	}
	for _, lane := range stats.Lanes {
		stats.Waits, stats.Waited = stats.Waits+lane.Waits, stats.Waited+lane.Waited
	}
	return stats
}

// Census counts the devices and allocations in the database.
type Census struct {
	Devices     []DeviceCount
	Allocations []AllocationCount
}

// DeviceCount is the number of approved devices of a kind, and of those that are online
// on any replica.
type DeviceCount struct {
	Kind     string `db:"kind"`
	Approved int    `db:"approved"`
	Online   int    `db:"online"`
}

// AllocationCount is the number of allocations with the same values of the fields that
// determine their status.
type AllocationCount struct {
	DeviceOnline bool   `db:"device_online"`
	ServerOnline bool   `db:"server_online"`
	ServerState  string `db:"server_state"`
	ClientState  string `db:"client_state"`
	Draining     bool   `db:"draining"`
	Enabled      bool   `db:"enabled"`
	Count        int    `db:"count"`
}

// Census counts devices and allocations in one snapshot.
func (d *DB) Census(ctx context.Context) (Census, error) {
	var c Census
	err := d.devices.snapshot(ctx, func(tx *sqlx.Tx) error {
		err := tx.SelectContext(ctx, &c.Devices,
			`SELECT d.kind, count(*) AS approved, count(*) FILTER (WHERE r.lease_expires_at > now()) AS online
			FROM devices d LEFT JOIN replicas r ON r.id = d.replica_id
			WHERE d.approved_at IS NOT NULL
			GROUP BY d.kind ORDER BY d.kind`)
		if err != nil {
			return err
		}
		return tx.SelectContext(ctx, &c.Allocations,
			`SELECT device_online, server_online, server_state, client_state, draining, enabled, count(*) AS count
			FROM (`+allocationQuery+` WHERE a.retires IS NULL) AS allocations
			GROUP BY device_online, server_online, server_state, client_state, draining, enabled`)
	})
	return c, wrap(err, "count devices and allocations")
}
