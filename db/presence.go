package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// RenewLease creates or extends a replica's lease, by the database's clock. The devices connected to
// the replica are online while the lease is valid. A replica must have a lease before any
// [DB.Connect], and renew it well before it expires.
func (d *DB) RenewLease(ctx context.Context, replicaID uuid.UUID, lease time.Duration) error {
	_, err := d.pool.ExecContext(ctx,
		`INSERT INTO replicas (id, renewed_at, lease_expires_at)
		VALUES ($1, now(), now() + $2 * interval '1 second')
		ON CONFLICT (id) DO UPDATE SET
			renewed_at = excluded.renewed_at, lease_expires_at = excluded.lease_expires_at`,
		replicaID, lease.Seconds())
	return wrap(err, "renew lease")
}

// releaseGrace is the time in which the devices of a stopping replica should reconnect to another.
const releaseGrace = 3 * time.Second

// ReleaseReplica shortens the lease of a stopping replica to a few seconds. Its devices remain online
// for that long, so that a tunnel server that reconnects to another replica is not shown as offline. A
// device that does not reconnect was last seen now.
func (d *DB) ReleaseReplica(ctx context.Context, replicaID uuid.UUID) error {
	_, err := d.pool.ExecContext(ctx,
		`UPDATE replicas SET renewed_at = now(), lease_expires_at = now() + $2 * interval '1 second' WHERE id = $1`,
		replicaID, releaseGrace.Seconds())
	return wrap(err, "release replica")
}

// Hello describes a device that connects.
type Hello struct {
	// TokenVersion is the version of the token with which it connected.
	TokenVersion int64
	// ReplicaID is the replica to which it connected.
	ReplicaID              uuid.UUID
	AgentVersion, Platform string
	// RelayPort and Fingerprint tell clients how to connect to a tunnel server; zero for a client.
	RelayPort   int
	Fingerprint string
	// TokenKey is the id of the key that signed the token with which it connected; empty if not known.
	TokenKey string
	// IfOffline makes Connect fail if the device is online.
	IfOffline bool
}

// Connect marks a device as online and returns the generation of this connection, which is greater than
// that of every earlier one. It resets the device's reports on allocations. If the device was online on
// another replica, Connect notifies the device, so that its older connection there ends. If the address
// or key of a tunnel server has changed, it notifies the clients.
//
// It returns [ErrNotFound] if the device does not exist, [ErrConflict] if the token version is not
// current or the device is not approved, and [ErrOnline] as [Hello].IfOffline says. The replica must hold
// a lease ([DB.RenewLease]).
func (d *DB) Connect(ctx context.Context, deviceID uuid.UUID, hello Hello) (generation int64, err error) {
	err = d.tx(ctx, func(tx *sqlx.Tx) error {
		var before struct {
			Device
			Replica uuid.NullUUID `db:"replica_id"`
		}
		err := tx.GetContext(ctx, &before,
			`SELECT `+deviceColumns+`, d.replica_id FROM devices d WHERE d.id = $1 FOR NO KEY UPDATE OF d`, deviceID)
		if err != nil {
			return err
		}
		if before.ApprovedAt == nil || before.TokenVersion != hello.TokenVersion {
			return ErrConflict
		}
		if hello.IfOffline && before.Online {
			return ErrOnline
		}
		err = tx.GetContext(ctx, &generation,
			`UPDATE devices SET generation = generation + 1, replica_id = $2,
				first_connected_at = coalesce(first_connected_at, now()), last_seen_at = now(),
				agent_version = nullif($3, ''), platform = nullif($4, ''), relay_port = $5, fingerprint = $6,
				token_key = nullif($7, ''), token_key_version = CASE WHEN $7 <> '' THEN token_version END,
				players = NULL
			WHERE id = $1 RETURNING generation`,
			deviceID, hello.ReplicaID, hello.AgentVersion, hello.Platform, hello.RelayPort, hello.Fingerprint,
			hello.TokenKey)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, reportsOf(before.Kind).reset, deviceID); err != nil {
			return err
		}
		if before.RelayPort != hello.RelayPort || before.Fingerprint != hello.Fingerprint {
			if err := notifyClientsOf(ctx, tx, deviceID); err != nil {
				return err
			}
		}
		// The replica's hub knows an older connection on the same replica by itself. Without this
		// condition, thousands of devices that reconnect at once would each be read again.
		if !before.Replica.Valid || before.Replica.UUID == hello.ReplicaID {
			return nil
		}
		return notify(ctx, tx, deviceID)
	})
	return generation, wrap(err, "connect device %s", deviceID)
}

// Disconnect marks a device as offline, unless it has a connection of a later generation.
func (d *DB) Disconnect(ctx context.Context, deviceID uuid.UUID, generation int64) error {
	_, err := d.pool.ExecContext(ctx,
		`UPDATE devices SET replica_id = NULL, last_seen_at = now()
		WHERE id = $1 AND generation = $2 AND replica_id IS NOT NULL`, deviceID, generation)
	return wrap(err, "disconnect device %s", deviceID)
}

// ReconcilePresence marks devices as offline that the database shows on the replica but that connected
// does not return, as after a failed Disconnect. connected must include devices whose [DB.Connect] is
// in progress. It is called after the database has been read: a device that connects later has another
// generation and stays online.
func (d *DB) ReconcilePresence(ctx context.Context, replicaID uuid.UUID, connected func() []uuid.UUID) error {
	var rows []struct {
		ID         uuid.UUID `db:"id"`
		Generation int64     `db:"generation"`
	}
	err := d.pool.SelectContext(ctx, &rows, `SELECT id, generation FROM devices WHERE replica_id = $1`, replicaID)
	if err != nil {
		return wrap(err, "read presence")
	}
	here := make(map[uuid.UUID]bool)
	for _, id := range connected() {
		here[id] = true
	}
	var ids []uuid.UUID
	var generations []int64
	for _, row := range rows {
		if !here[row.ID] {
			ids, generations = append(ids, row.ID), append(generations, row.Generation)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err = d.pool.ExecContext(ctx,
		`WITH locked AS (
			SELECT d.id FROM devices d JOIN unnest($2::uuid[], $3::bigint[]) AS g (id, generation)
				ON g.id = d.id AND g.generation = d.generation
			WHERE d.replica_id = $1 ORDER BY d.id FOR NO KEY UPDATE OF d)
		UPDATE devices d SET replica_id = NULL, last_seen_at = now() FROM locked WHERE d.id = locked.id`,
		replicaID, uuidArray(ids), pq.Array(generations))
	return wrap(err, "reconcile presence")
}

// Channel is the state of a device that its control channel must match.
type Channel struct {
	TokenVersion int64 `db:"token_version"`
	Generation   int64 `db:"generation"`
	// Deleted means that the device was deleted; the rest is zero then.
	Deleted bool `db:"deleted"`
}

// Channels returns the current token version and generation of devices. A device that is missing from
// the result is unknown: the database has neither it nor its tombstone.
func (d *DB) Channels(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Channel, error) {
	var rows []struct {
		ID uuid.UUID `db:"id"`
		Channel
	}
	err := d.pool.SelectContext(ctx, &rows,
		`SELECT id, token_version, generation, false AS deleted FROM devices WHERE id = ANY ($1::uuid[])
		UNION ALL
		SELECT id, 0, 0, true FROM deleted_devices WHERE id = ANY ($1::uuid[])`, uuidArray(ids))
	if err != nil {
		return nil, wrap(err, "channels")
	}
	channels := make(map[uuid.UUID]Channel, len(rows))
	for _, row := range rows {
		channels[row.ID] = row.Channel
	}
	return channels, nil
}
