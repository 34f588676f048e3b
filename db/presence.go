package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// RenewLease keeps the devices connected on a replica online for another lease, by the database's
// clock. A replica renews well before its lease runs out, and first of all before any [DB.Connect].
func (d *DB) RenewLease(ctx context.Context, replicaID uuid.UUID, lease time.Duration) error {
	_, err := d.pool.ExecContext(ctx,
		`INSERT INTO replicas (id, renewed_at, lease_expires_at)
		VALUES ($1, now(), now() + $2 * interval '1 second')
		ON CONFLICT (id) DO UPDATE SET
			renewed_at = excluded.renewed_at, lease_expires_at = excluded.lease_expires_at`,
		replicaID, lease.Seconds())
	return wrap(err, "renew lease")
}

// handOverLease is how long the devices of a replica that stops are given to be back on another.
const handOverLease = 3 * time.Second

// ReleaseReplica ends the lease of a replica that stops, but for a moment: until then its devices
// are online still, so that a tunnel server that moves to another replica is not found missing. One
// that does not come back was last seen now.
func (d *DB) ReleaseReplica(ctx context.Context, replicaID uuid.UUID) error {
	_, err := d.pool.ExecContext(ctx,
		`UPDATE replicas SET renewed_at = now(), lease_expires_at = now() + $2 * interval '1 second' WHERE id = $1`,
		replicaID, handOverLease.Seconds())
	return wrap(err, "release replica")
}

// Hello is what a device says when it connects.
type Hello struct {
	// TokenVersion is that of the token it connected with.
	TokenVersion int64
	// ReplicaID is the replica it connected to.
	ReplicaID              uuid.UUID
	AgentVersion, Platform string
	// RelayPort and Fingerprint tell clients how to reach a tunnel server; zero for a client.
	RelayPort   int
	Fingerprint string
	// TokenKey is the id of the key that signed the token it connected with; empty where that is
	// not known.
	TokenKey string
}

// Connect takes a device online and returns the generation of this connection, which is above that
// of every earlier one. Its reports on allocations start over. Where another replica had it online
// the device is notified, so that an older connection there ends; and so are the clients of a tunnel
// server that is now reached differently.
//
// It returns [ErrNotFound] where the device is deleted and [ErrConflict] where the token version is
// not the valid one, or the device not approved. The replica must hold a lease ([DB.RenewLease]).
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
		// An older connection on this replica its hub knows of, and most often there is none: with
		// thousands of devices that come back at once, each would be read again for its own event.
		if !before.Replica.Valid || before.Replica.UUID == hello.ReplicaID {
			return nil
		}
		return notify(ctx, tx, deviceID)
	})
	return generation, wrap(err, "connect device %s", deviceID)
}

// Disconnect takes a device offline, unless a later connection than that of generation took over.
func (d *DB) Disconnect(ctx context.Context, deviceID uuid.UUID, generation int64) error {
	_, err := d.pool.ExecContext(ctx,
		`UPDATE devices SET replica_id = NULL, last_seen_at = now()
		WHERE id = $1 AND generation = $2 AND replica_id IS NOT NULL`, deviceID, generation)
	return wrap(err, "disconnect device %s", deviceID)
}

// ReconcilePresence takes offline every device that the database has on the replica but that is not
// among those that connected returns, as after a Disconnect that failed. A device whose [DB.Connect]
// is under way must be among them. connected is called once the database has been read: a device that
// connects after that has another generation, and stays.
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

// Channel is what makes a control channel the rightful one of its device.
type Channel struct {
	TokenVersion int64 `db:"token_version"`
	Generation   int64 `db:"generation"`
}

// Channels reads the current token version and generation of devices. A device that is absent from
// the result is deleted.
func (d *DB) Channels(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Channel, error) {
	var rows []struct {
		ID uuid.UUID `db:"id"`
		Channel
	}
	err := d.pool.SelectContext(ctx, &rows,
		`SELECT id, token_version, generation FROM devices WHERE id = ANY ($1::uuid[])`, uuidArray(ids))
	if err != nil {
		return nil, wrap(err, "channels")
	}
	channels := make(map[uuid.UUID]Channel, len(rows))
	for _, row := range rows {
		channels[row.ID] = row.Channel
	}
	return channels, nil
}
