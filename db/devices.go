package db

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Kinds of devices.
const (
	KindClient = "client"
	KindServer = "server"
)

// Device is an enrolled machine, or one whose enrollment is pending.
type Device struct {
	ID             uuid.UUID `db:"id"`
	Name           string    `db:"name"`
	Kind           string    `db:"kind"`     // KindClient or KindServer
	OwnerID        *int64    `db:"owner_id"` // nil if an organisation owns it, or if it has no owner
	OrganisationID *int64    `db:"organisation_id"`
	// UserCode is empty for a device without enrollment, and has no meaning once approved.
	UserCode string `db:"user_code"`
	// ExpiresAt is when a pending enrollment expires. It has no meaning once approved.
	ExpiresAt        time.Time  `db:"expires_at"`
	CreatedAt        time.Time  `db:"created_at"`
	ApprovedAt       *time.Time `db:"approved_at"`        // nil while pending
	FirstConnectedAt *time.Time `db:"first_connected_at"` // nil until it has connected
	// LastSeenAt is when it was last known to be connected: about now while it is online, nil if it
	// never was.
	LastSeenAt *time.Time `db:"last_seen_at"`
	// TokenVersion is the only valid version of its tokens. 0 means that it has never had one.
	TokenVersion int64 `db:"token_version"`
	// Online means connected to a replica whose lease has not expired.
	Online       bool    `db:"online"`
	AgentVersion *string `db:"agent_version"`
	Platform     *string `db:"platform"`
	// ControlAddress is the address from which it is, or was last, connected; nil if that is not known.
	ControlAddress *string `db:"control_address"`
	// ConnectedAt is since when it is connected; nil while it is offline.
	ConnectedAt *time.Time `db:"connected_at"`
	// DisconnectReason is why it was disconnected the last time, as [DB.Disconnect] was told or
	// [ReplicaStopped]; nil if it never was, or if that is not known.
	DisconnectReason *string `db:"disconnect_reason"`

	// The remaining fields describe a tunnel server, and are zero for a client.

	Host
	RelayPort   int    `db:"relay_port"`  // 0 until it has reported one
	Fingerprint string `db:"fingerprint"` // empty until it has reported one
	// PortFirst and PortLast bound the port range, both included; 0 means none.
	PortFirst int `db:"port_first"`
	PortLast  int `db:"port_last"`
	// Region is a label for people.
	Region string `db:"region"`
	// Embedded means that it is embedded in a panel.
	Embedded bool `db:"embedded"`
	// ServerState is one of the constants ServerActive to ServerDrained.
	ServerState string `db:"server_state"`
	// DrainUntil is when a draining tunnel server cuts off its last players; nil if it does not
	// drain. DrainMove means that its allocations move to other tunnel servers.
	DrainUntil *time.Time `db:"drain_until"`
	DrainMove  bool       `db:"drain_move"`
	// Players is the last reported number of players: nil while it is offline or has not reported.
	Players *int `db:"players"`
}

// Actor returns the device as an actor at the address of the actor of ctx.
func (d Device) Actor(ctx context.Context) Actor {
	return Actor{Kind: ActorDevice, ID: d.ID.String(), Name: d.Name, Address: ActorOf(ctx).Address}
}

// The states of a tunnel server.
const (
	ServerActive   = "active"
	ServerCordoned = "cordoned" // it accepts no new allocations
	ServerDraining = "draining" // it accepts no new players either, and still has some
	ServerDrained  = "drained"  // it has no players left
)

// deviceColumns are the columns of a Device, from devices d. Presence is read through subqueries
// instead of a join, so that RETURNING can use them too. A device of a dead replica was last seen when
// that replica last renewed its lease.
const deviceColumns = `d.id, d.name, d.kind, d.owner_id, d.organisation_id, d.user_code, d.expires_at,
	d.created_at, d.approved_at, d.first_connected_at, d.token_version, d.agent_version, d.platform,
	host(d.control_address) AS control_address, CASE WHEN ` + deviceOnline + ` THEN d.connected_at END AS connected_at,
	` + disconnectReason + ` AS disconnect_reason,
	` + hostColumns + `,
	d.relay_port, d.fingerprint, d.port_first, d.port_last, d.region,
	d.embedded_name IS NOT NULL AS embedded, d.drain_until, d.drain_move,
	CASE WHEN ` + deviceOnline + ` THEN d.players END AS players,
	CASE WHEN NOT d.cordoned THEN 'active'
		WHEN d.drain_until IS NULL THEN 'cordoned'
		WHEN EXISTS (SELECT 1 FROM allocations a WHERE a.server_id = d.id AND NOT a.drained) THEN 'draining'
		WHEN d.players > 0 AND ` + deviceOnline + ` THEN 'draining'
		ELSE 'drained' END AS server_state,
	greatest(d.last_seen_at, (SELECT r.renewed_at FROM replicas r WHERE r.id = d.replica_id)) AS last_seen_at,
	` + deviceOnline + ` AS online`

// ReplicaStopped is the reason of a disconnect with a replica that was killed.
const ReplicaStopped = "panel_stopped"

// disconnectReason is the reason of the last disconnect of devices d. Nobody stored one of a replica that was killed.
const disconnectReason = `CASE WHEN d.replica_id IS NOT NULL AND NOT ` + deviceOnline + ` THEN '` + ReplicaStopped + `' ELSE d.disconnect_reason END`

const deviceOnline = `EXISTS (SELECT 1 FROM replicas r WHERE r.id = d.replica_id AND r.lease_expires_at > now())`

// DevicePosition is the position of a device in the list of devices, which is sorted by these
// fields. It remains a position after the device is deleted.
type DevicePosition struct {
	CreatedAt time.Time
	ID        uuid.UUID
}

// Devices lists the devices in scope, newest first. The device at page.After need not exist any more.
func (d *DB) Devices(ctx context.Context, scope Scope, page Page[DevicePosition]) ([]Device, error) {
	var createdAt *time.Time
	var id *uuid.UUID
	if page.After != nil {
		createdAt, id = &page.After.CreatedAt, &page.After.ID
	}
	var devices []Device
	err := d.requests.SelectContext(ctx, &devices, devicesQuery(scope), scope.args(createdAt, id, page.Limit)...)
	return devices, wrap(err, "list devices")
}

// devicesQuery reads a page of devices. Those of each owner are read in the order of the list, by an index.
func devicesQuery(scope Scope) string {
	const (
		list   = `SELECT ` + deviceColumns + ` FROM devices d WHERE `
		read   = `SELECT d.id, d.created_at FROM devices d WHERE `
		after  = ` AND ($4::timestamptz IS NULL OR (d.created_at, d.id) < ($4, $5::uuid))`
		newest = ` ORDER BY d.created_at DESC, d.id DESC`
		limit  = ` LIMIT nullif($6::bigint, 0)`
	)
	if scope.All {
		return list + visible + after + newest + limit
	}
	return list + `d.id IN (SELECT d.id FROM (
			(` + read + `d.owner_id = $2::bigint AND NOT $1::boolean` + after + newest + limit + `)
			UNION ALL SELECT d.* FROM organisation_members m CROSS JOIN LATERAL (
				` + read + `d.organisation_id = m.organisation_id` + after + newest + limit + `) AS d WHERE m.user_id = $2::bigint
			UNION ALL (` + read + `d.organisation_id = -$2::bigint` + after + newest + limit + `)
			UNION ALL ` + read + `d.id = $3::uuid` + after + `) AS d` + newest + limit + `)` + newest
}

// Device returns a device in scope.
func (d *DB) Device(ctx context.Context, scope Scope, id uuid.UUID) (Device, error) {
	var device Device
	err := d.requests.GetContext(ctx, &device,
		`SELECT `+deviceColumns+` FROM devices d WHERE d.id = $4 AND `+visible, scope.args(id)...)
	return device, wrap(err, "device %s", id)
}

// ManagedDevice returns a device that the scope manages.
func (d *DB) ManagedDevice(ctx context.Context, scope Scope, id uuid.UUID) (Device, error) {
	var row struct {
		Device
		Managed bool `db:"managed"`
	}
	err := d.requests.GetContext(ctx, &row,
		`SELECT `+deviceColumns+`, coalesce(`+manageable+`, false) AS managed FROM devices d WHERE d.id = $4 AND `+visible, scope.args(id)...)
	if err == nil && !row.Managed {
		err = ErrForbidden
	}
	return row.Device, wrap(err, "managed device %s", id)
}

// DeviceByID returns a device whatever its owner. Concurrent calls share a statement.
func (d *DB) DeviceByID(ctx context.Context, id uuid.UUID) (Device, error) {
	device, err := d.batches.devices.Do(ctx, id)
	if err == nil && device == nil {
		err = ErrNotFound
	}
	if err != nil {
		return Device{}, wrap(err, "device %s", id)
	}
	return *device, nil
}

// devicesByID returns devices, and nil for those that do not exist.
func (d *DB) devicesByID(ctx context.Context, ids []uuid.UUID) ([]*Device, error) {
	var rows []Device
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT `+deviceColumns+` FROM devices d WHERE d.id = ANY ($1::uuid[])`, uuidArray(ids))
	if err != nil {
		return nil, err
	}
	found := make(map[uuid.UUID]*Device, len(rows))
	for i := range rows {
		found[rows[i].ID] = &rows[i]
	}
	devices := make([]*Device, len(ids))
	for i, id := range ids {
		devices[i] = found[id]
	}
	return devices, nil
}

// DevicePatch changes the fields that are not nil.
type DevicePatch struct {
	Name *string
	// Owner is the new owner of the device and its allocations.
	Owner *NewOwner

	// The remaining fields are for tunnel servers.

	// PublicHost is the public host; "" makes it a guess from now on.
	PublicHost          *string
	PortFirst, PortLast *int // both or neither
	Region              *string
	// Cordoned closes it to new allocations; false also ends a drain.
	Cordoned *bool
}

// UpdateDevice changes a device that the scope manages. It notifies a tunnel server whose host has changed,
// with its clients, one that no longer drains, and those of a device with another owner. With an owner it
// returns the errors of [NewOwner].
func (d *DB) UpdateDevice(ctx context.Context, scope Scope, id uuid.UUID, patch DevicePatch) (Device, error) {
	var device Device
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		lock := `FOR NO KEY UPDATE OF d`
		var hold quotaHold
		if patch.Owner != nil {
			var err error
			if hold, err = patch.Owner.lock(ctx, tx, scope); err != nil {
				return err
			}
			lock = `FOR UPDATE OF d` // Excludes new allocations, which lock this row too.
		}
		var before Host
		err := tx.GetContext(ctx, &before,
			`SELECT `+hostColumns+` FROM devices d WHERE d.id = $4 AND `+manageable+` `+lock, scope.args(id)...)
		if err := scope.refused(ctx, tx, err, deviceRow, id); err != nil {
			return err
		}
		if err := checkCondition[Device](ctx, tx, deviceByID, id); err != nil {
			return err
		}
		if patch.Owner != nil {
			if err := patch.Owner.take(ctx, tx, hold, id); err != nil {
				return err
			}
		}
		err = tx.GetContext(ctx, &device,
			`UPDATE devices AS d SET name = coalesce($2, d.name),
				public_host = CASE WHEN $3 = '' THEN `+guess+` ELSE coalesce($3, d.public_host) END,
				guessed_host = CASE WHEN $3 = '' THEN `+guess+` WHEN $3 IS NULL THEN d.guessed_host END,
				host_due = CASE WHEN $3 IS NULL THEN d.host_due END,
				port_first = coalesce($4, d.port_first), port_last = coalesce($5, d.port_last),
				region = coalesce($6, d.region), cordoned = coalesce($7, d.cordoned),
				drain_until = CASE WHEN $7 IS FALSE THEN NULL ELSE d.drain_until END,
				drain_move = d.drain_move AND $7 IS NOT FALSE
			WHERE d.id = $1 RETURNING `+deviceColumns,
			id, patch.Name, patch.PublicHost, patch.PortFirst, patch.PortLast, patch.Region, patch.Cordoned)
		if err != nil {
			return err
		}
		if patch.Cordoned != nil && !*patch.Cordoned {
			if err := reopenPorts(ctx, tx, id); err != nil {
				return err
			}
		}
		if device.PublicHost == before.PublicHost && device.HostGuessed == before.HostGuessed {
			return nil
		}
		return notifyHost(ctx, tx, id)
	})
	return device, wrap(err, "update device %s", id)
}

// DeleteDevice deletes a device that the scope manages, with its allocations, leaves a tombstone, and
// notifies it and the devices at the other ends.
func (d *DB) DeleteDevice(ctx context.Context, scope Scope, id uuid.UUID) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock excludes new allocations, which lock this row too.
		var locked uuid.UUID
		err := tx.GetContext(ctx, &locked,
			`SELECT d.id FROM devices d WHERE d.id = $4 AND `+manageable+` FOR UPDATE OF d`, scope.args(id)...)
		if err := scope.refused(ctx, tx, err, deviceRow, id); err != nil {
			return err
		}
		if err := checkCondition[Device](ctx, tx, deviceByID, id); err != nil {
			return err
		}
		return deleteDevices(ctx, tx, id)
	})
	return wrap(err, "delete device %s", id)
}

const deviceByID = `SELECT ` + deviceColumns + ` FROM devices d WHERE d.id = $1`

// deleteDevices deletes devices that tx has locked, as [DB.DeleteDevice].
func deleteDevices(ctx context.Context, tx *sqlx.Tx, ids ...uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	var ends []struct {
		DeviceID uuid.UUID `db:"device_id"`
		ServerID uuid.UUID `db:"server_id"`
	}
	// Allocations are always locked in the order of their ids, which avoids deadlocks. They include the
	// old ports that a tunnel server's allocations have on other tunnel servers.
	err := tx.SelectContext(ctx, &ends,
		`WITH locked AS (
			SELECT id FROM allocations WHERE device_id = ANY ($1) OR server_id = ANY ($1)
				OR retires IN (SELECT id FROM allocations WHERE server_id = ANY ($1)) ORDER BY id FOR UPDATE)
		DELETE FROM allocations a USING locked WHERE a.id = locked.id
		RETURNING a.device_id, a.server_id`, pq.Array(ids))
	if err != nil {
		return err
	}
	changed := slices.Clone(ids)
	for _, end := range ends {
		changed = append(changed, end.DeviceID, end.ServerID)
	}
	if err := buryDevices(ctx, tx, ids); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM devices WHERE id = ANY ($1)`, pq.Array(ids)); err != nil {
		return err
	}
	return notify(ctx, tx, changed...)
}

// RegenerateToken raises the token version of an approved device that the scope manages, which invalidates
// its tokens and ends its enrollment: the device code gets no token any more. It notifies the device and
// its tunnel servers. It returns [ErrConflict] if the device is not
// approved.
func (d *DB) RegenerateToken(ctx context.Context, scope Scope, id uuid.UUID) (Device, error) {
	var device Device
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &device,
			`SELECT `+deviceColumns+` FROM devices d WHERE d.id = $4 AND `+manageable+` FOR UPDATE OF d`,
			scope.args(id)...)
		if err := scope.refused(ctx, tx, err, deviceRow, id); err != nil {
			return err
		}
		if device.ApprovedAt == nil {
			return ErrConflict
		}
		err = tx.GetContext(ctx, &device,
			`UPDATE devices AS d SET token_version = d.token_version + 1,
				spent_code_hash = coalesce(d.code_hash, d.spent_code_hash), code_hash = NULL
			WHERE d.id = $1 RETURNING `+deviceColumns, id)
		if err != nil {
			return err
		}
		if err := notifyServersOf(ctx, tx, id); err != nil {
			return err
		}
		return notify(ctx, tx, id)
	})
	return device, wrap(err, "regenerate token of device %s", id)
}

// notifyServersOf notifies the tunnel servers on which clients have allocations. To include those of
// allocations that are being created, the caller must hold a FOR UPDATE lock on the client's row.
func notifyServersOf(ctx context.Context, tx *sqlx.Tx, clients ...uuid.UUID) error {
	var servers []uuid.UUID
	err := tx.SelectContext(ctx, &servers,
		`SELECT DISTINCT server_id FROM allocations WHERE device_id = ANY ($1::uuid[])`, uuidArray(clients))
	if err != nil {
		return err
	}
	return notify(ctx, tx, servers...)
}

// notifyClientsOf notifies the clients with allocations on a tunnel server.
func notifyClientsOf(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID) error {
	var clients []uuid.UUID
	err := tx.SelectContext(ctx, &clients, `SELECT DISTINCT device_id FROM allocations WHERE server_id = $1`, serverID)
	if err != nil {
		return err
	}
	return notify(ctx, tx, clients...)
}
