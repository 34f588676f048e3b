package db

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
)

// PoolStats say how the pool of connections is doing, now or since it was opened.
type PoolStats struct {
	Max, InUse, Idle int           // Connections.
	Waits            int64         // How often one had to be waited for,
	Waited           time.Duration // and for how long in all.
}

// PoolStats returns counts of the pool. It asks the database nothing.
func (d *DB) PoolStats() PoolStats {
	s := d.pool.Stats()
	return PoolStats{
		Max: s.MaxOpenConnections, InUse: s.InUse, Idle: s.Idle,
		Waits: s.WaitCount, Waited: s.WaitDuration,
	}
}

// Census is what there is in the database, by number.
type Census struct {
	Devices     []DeviceCount
	Allocations []AllocationCount
}

// DeviceCount is how many approved devices of a kind there are, and how many of
// them are online on any replica.
type DeviceCount struct {
	Kind     string `db:"kind"`
	Approved int    `db:"approved"`
	Online   int    `db:"online"`
}

// AllocationCount is how many allocations have what decides their status in common.
type AllocationCount struct {
	DeviceOnline bool   `db:"device_online"`
	ServerOnline bool   `db:"server_online"`
	ServerState  string `db:"server_state"`
	ClientState  string `db:"client_state"`
	Draining     bool   `db:"draining"`
	Count        int    `db:"count"`
}

// Census counts devices and allocations, both as of one moment.
func (d *DB) Census(ctx context.Context) (Census, error) {
	var c Census
	err := d.snapshot(ctx, func(tx *sqlx.Tx) error {
		err := tx.SelectContext(ctx, &c.Devices,
			`SELECT d.kind, count(*) AS approved, count(*) FILTER (WHERE r.lease_expires_at > now()) AS online
			FROM devices d LEFT JOIN replicas r ON r.id = d.replica_id
			WHERE d.approved_at IS NOT NULL
			GROUP BY d.kind ORDER BY d.kind`)
		if err != nil {
			return err
		}
		return tx.SelectContext(ctx, &c.Allocations,
			`SELECT device_online, server_online, server_state, client_state, draining, count(*) AS count
			FROM (`+allocationQuery+` WHERE a.retires IS NULL) AS allocations
			GROUP BY device_online, server_online, server_state, client_state, draining`)
	})
	return c, wrap(err, "count devices and allocations")
}
