package db

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// RenewLease creates or extends a replica's lease, by the database's clock. The devices connected to
// the replica are online while the lease is valid. A replica must have a lease before any
// [DB.Connect], and renew it well before it expires.
func (d *DB) RenewLease(ctx context.Context, replicaID uuid.UUID, lease time.Duration) error {
	_, err := d.leases.ExecContext(ctx,
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
	_, err := d.leases.ExecContext(ctx,
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
	// Address is where the connection comes from; the zero Addr if it is not known.
	Address netip.Addr
	// RelayPort and Fingerprint tell clients how to connect to a tunnel server; zero for a client.
	RelayPort   int
	Fingerprint string
	// CalledFrom is what the public host of a tunnel server would be if it were guessed from this
	// connection; empty if it is not known.
	CalledFrom string
	// KeptRules are the names of the rules that a tunnel server keeps.
	KeptRules []string
	// TokenKey is the id of the key that signed the token with which it connected; empty if not known.
	TokenKey string
	// IfOffline makes Connect fail if the device is online.
	IfOffline bool
}

// sharedAttempts is in how many shared statements a tunnel client may be before it takes a transaction of
// its own. Whatever has a row of it locked, as a report of a tunnel server on many allocations, has mostly
// ended before the next one.
const sharedAttempts = 4

// Connect marks a device as online and returns the generation of this connection, which is greater than
// that of every earlier one. It resets the device's reports on allocations. If the device was online on
// another replica, Connect notifies the device, so that its older connection there ends. If the address
// or key of a tunnel server has changed, it notifies the clients. The public host of a tunnel server is
// due to be checked ([DB.DueHosts]). Concurrent calls for tunnel clients share a statement.
//
// It returns [ErrNotFound] if the device does not exist, [ErrConflict] if the token version is not
// current or the device is not approved, and [ErrOnline] as [Hello].IfOffline says. The replica must hold
// a lease ([DB.RenewLease]).
func (d *DB) Connect(ctx context.Context, deviceID uuid.UUID, hello Hello) (generation int64, err error) {
	attempts := sharedAttempts
	if hello.RelayPort != 0 || hello.IfOffline {
		attempts = 0 // Of these, few connect at the same time.
	}
	for ; err == nil && generation == 0 && attempts > 0; attempts-- {
		generation, err = d.batches.connects.Do(ctx, connecting{deviceID, hello})
	}
	if err == nil && generation == 0 {
		generation, err = d.connectAlone(ctx, deviceID, hello)
	}
	return generation, wrap(err, "connect device %s", deviceID)
}

// connecting is a device that connects.
type connecting struct {
	id    uuid.UUID
	hello Hello
}

// connectClients does what [DB.Connect] does for many tunnel clients. It returns generation 0 for those
// that it leaves to a later batch, or to connectAlone: devices that must be refused, and those of which a
// row is locked, their own or that of an allocation, for which the others must not wait. Of several
// connections of one device, only the first is in the batch: each of them has a generation of its own.
func (d *DB) connectClients(ctx context.Context, devices []connecting) ([]int64, error) {
	generations := make([]int64, len(devices))
	index := make(map[uuid.UUID]int, len(devices))
	ids := make([]uuid.UUID, 0, len(devices))
	replicas := make([]uuid.UUID, 0, len(devices))
	versions := make([]int64, 0, len(devices))
	agents, platforms, keys := make([]string, 0, len(devices)), make([]string, 0, len(devices)), make([]string, 0, len(devices))
	addresses := make([]string, 0, len(devices))
	for i, c := range devices {
		if _, twice := index[c.id]; twice {
			continue
		}
		index[c.id] = i
		ids, replicas, versions = append(ids, c.id), append(replicas, c.hello.ReplicaID), append(versions, c.hello.TokenVersion)
		agents, platforms, keys = append(agents, c.hello.AgentVersion), append(platforms, c.hello.Platform), append(keys, c.hello.TokenKey)
		addresses = append(addresses, addressText(c.hello.Address))
	}
	var rows []struct {
		ID         uuid.UUID `db:"id"`
		Generation int64     `db:"generation"`
		Notified   *string   `db:"notified"`
	}
	// Like connectAlone, it locks devices first, then allocations. It waits for no lock of another, and
	// so is no part of a deadlock.
	err := d.devices.SelectContext(ctx, &rows,
		`WITH hello AS (
			SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $9::text[])
				AS h (id, token_version, replica_id, agent_version, platform, token_key, address)),
		locked AS (
			SELECT d.id, d.replica_id FROM devices d JOIN hello h ON h.id = d.id AND h.token_version = d.token_version
			WHERE d.kind = 'client' AND d.approved_at IS NOT NULL
			ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED),
		reported AS (
			SELECT a.id, a.device_id FROM allocations a JOIN locked l ON l.id = a.device_id
			ORDER BY a.id FOR NO KEY UPDATE OF a SKIP LOCKED),
		free AS (
			SELECT l.id, l.replica_id FROM locked l
			LEFT JOIN (SELECT device_id, count(*) AS count FROM reported GROUP BY device_id) r ON r.device_id = l.id
			WHERE (SELECT count(*) FROM allocations a WHERE a.device_id = l.id) = coalesce(r.count, 0)),
		connected AS (
			UPDATE devices d SET generation = d.generation + 1, replica_id = h.replica_id,
				first_connected_at = coalesce(d.first_connected_at, now()), last_seen_at = now(),
				connected_at = now(), control_address = nullif(h.address, '')::inet, disconnect_reason = `+disconnectReason+`,
				agent_version = nullif(h.agent_version, ''), platform = nullif(h.platform, ''),
				token_key = nullif(h.token_key, ''), token_key_version = CASE WHEN h.token_key <> '' THEN d.token_version END
			FROM free f JOIN hello h ON h.id = f.id WHERE d.id = f.id
			RETURNING d.id, d.generation, d.replica_id, f.replica_id AS before),
		reset AS (
			UPDATE allocations a SET `+clientReports.unreported+`
			FROM reported r JOIN connected c ON c.id = r.device_id WHERE a.id = r.id)
		SELECT id, generation, CASE WHEN before <> replica_id THEN pg_notify($7, $8 || id)::text END AS notified
		FROM connected`,
		uuidArray(ids), pq.Array(versions), uuidArray(replicas), pq.Array(agents), pq.Array(platforms), pq.Array(keys),
		notifyChannel, payloadDevice, pq.Array(addresses))
	for _, row := range rows {
		generations[index[row.ID]] = row.Generation
	}
	return generations, err
}

// connectAlone is [DB.Connect] for one device of any kind.
func (d *DB) connectAlone(ctx context.Context, deviceID uuid.UUID, hello Hello) (generation int64, err error) {
	ctx, cancel := d.devices.bounded(ctx) // The wait for others included.
	defer cancel()
	// Many that wait for locks must leave the rest of the pool to others.
	turn := d.batches.alone
	if hello.RelayPort != 0 {
		turn = d.batches.aloneServers
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
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
			`UPDATE devices AS d SET generation = generation + 1, replica_id = $2,
				connected_at = now(), control_address = nullif($10, '')::inet, disconnect_reason = `+disconnectReason+`,
				first_connected_at = coalesce(first_connected_at, now()), last_seen_at = now(),
				agent_version = nullif($3, ''), platform = nullif($4, ''), relay_port = $5, fingerprint = $6,
				token_key = nullif($7, ''), token_key_version = CASE WHEN $7 <> '' THEN token_version END,
				players = NULL, called_from = coalesce(nullif($8, ''), called_from), host_due = NULL, kept_rules = coalesce($9, '{}'::text[])
			WHERE id = $1 RETURNING generation`,
			deviceID, hello.ReplicaID, hello.AgentVersion, hello.Platform, hello.RelayPort, hello.Fingerprint,
			hello.TokenKey, hello.CalledFrom, pq.Array(hello.KeptRules), addressText(hello.Address))
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
	return generation, err
}

// Disconnect marks a device as offline, unless it has a connection of a later generation, and stores the
// reason; "" is one that is not known. Concurrent calls share a statement.
func (d *DB) Disconnect(ctx context.Context, deviceID uuid.UUID, generation int64, reason string) error {
	_, err := d.batches.disconnects.Do(ctx, connection{deviceID, generation, reason})
	return wrap(err, "disconnect device %s", deviceID)
}

// connection is a connection of a device.
type connection struct {
	id         uuid.UUID
	generation int64
	reason     string // Why it ended; "" if that is not known.
}

// disconnect marks devices as offline that have no later connection.
func (d *DB) disconnect(ctx context.Context, ended []connection) error {
	ids, generations, reasons := make([]uuid.UUID, len(ended)), make([]int64, len(ended)), make([]string, len(ended))
	for i, c := range ended {
		ids[i], generations[i], reasons[i] = c.id, c.generation, c.reason
	}
	_, err := d.devices.ExecContext(ctx,
		`WITH locked AS (
			SELECT d.id, g.reason FROM devices d JOIN unnest($1::uuid[], $2::bigint[], $3::text[]) AS g (id, generation, reason)
				ON g.id = d.id AND g.generation = d.generation
			WHERE d.replica_id IS NOT NULL ORDER BY d.id FOR NO KEY UPDATE OF d)
		UPDATE devices d SET replica_id = NULL, last_seen_at = now(), disconnect_reason = nullif(locked.reason, '')
		FROM locked WHERE d.id = locked.id`,
		uuidArray(ids), pq.Array(generations), pq.Array(reasons))
	return err
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
	err := d.devices.SelectContext(ctx, &rows, `SELECT id, generation FROM devices WHERE replica_id = $1`, replicaID)
	if err != nil {
		return wrap(err, "read presence")
	}
	here := make(map[uuid.UUID]bool)
	for _, id := range connected() {
		here[id] = true
	}
	var ended []connection
	for _, row := range rows {
		if !here[row.ID] {
			ended = append(ended, connection{id: row.ID, generation: row.Generation})
		}
	}
	if len(ended) == 0 {
		return nil
	}
	return wrap(d.disconnect(ctx, ended), "reconcile presence")
}

// Channel is the state of a device that its control channel must match.
type Channel struct {
	TokenVersion int64 `db:"token_version"`
	Generation   int64 `db:"generation"`
	// Deleted means that the device was deleted; the rest is zero then.
	Deleted bool `db:"deleted"`
}

// Channels returns the current token version and generation of devices. A device that is missing from
// the result is unknown: the database has neither it nor its tombstone. Concurrent calls share a
// statement.
func (d *DB) Channels(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Channel, error) {
	channels, err := d.batches.channels.Do(ctx, ids)
	return channels, wrap(err, "channels")
}

// channelsOf returns the [DB.Channels] of each list of devices.
func (d *DB) channelsOf(ctx context.Context, lists [][]uuid.UUID) ([]map[uuid.UUID]Channel, error) {
	var rows []struct {
		ID uuid.UUID `db:"id"`
		Channel
	}
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT id, token_version, generation, false AS deleted FROM devices WHERE id = ANY ($1::uuid[])
		UNION ALL
		SELECT id, 0, 0, true FROM deleted_devices WHERE id = ANY ($1::uuid[])`, uuidArray(slices.Concat(lists...)))
	if err != nil {
		return nil, err
	}
	all := make(map[uuid.UUID]Channel, len(rows))
	for _, row := range rows {
		all[row.ID] = row.Channel
	}
	channels := make([]map[uuid.UUID]Channel, len(lists))
	for i, ids := range lists {
		channels[i] = make(map[uuid.UUID]Channel, len(ids))
		for _, id := range ids {
			if channel, ok := all[id]; ok {
				channels[i][id] = channel
			}
		}
	}
	return channels, nil
}
