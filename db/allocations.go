package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// The states of one side of an allocation.
const (
	StatePending = "pending" // it has not reported since it connected
	StateReady   = "ready"
	StateFailed  = "failed"
)

// What a tunnel client reports of an allocation's local target.
const (
	TargetUnknown = "unknown"
	TargetUp      = "up"
	TargetDown    = "down"
)

// Allocation is one public port on one tunnel server, given to one tunnel client.
type Allocation struct {
	ID        int64     `db:"id"`
	DeviceID  uuid.UUID `db:"device_id"` // the tunnel client
	ServerID  uuid.UUID `db:"server_id"`
	Protocol  string    `db:"protocol"` // "tcp" or "udp"
	Port      int       `db:"port"`
	LocalHost string    `db:"local_host"`
	LocalPort int       `db:"local_port"`
	Name      string    `db:"name"`
	// Enabled is false while it is paused: it keeps its port and takes nobody.
	Enabled        bool   `db:"enabled"`
	ProxyProtocol  string `db:"proxy_protocol"` // "none", "v1" or "v2"
	UDPIdleSeconds int    `db:"udp_idle_seconds"`
	// PlayerAddresses gives each player an address of 127.0.0.0/8 at a game there.
	PlayerAddresses bool `db:"player_addresses"`
	// Rules are those of the allocation itself.
	Rules Rules `db:"rules"`
	// Labels are for people and tools, and mean nothing here.
	Labels Labels `db:"labels"`
	// OrganisationID is the organisation that owns the device; nil if none does.
	OrganisationID *int64 `db:"organisation_id"`

	CreatedAt time.Time `db:"created_at"`
	// PublicHost and PublicAddresses are those of the tunnel server; see [Host].
	PublicHost      string    `db:"public_host"`
	PublicAddresses Addresses `db:"public_addresses"`

	DeviceOnline bool `db:"device_online"`
	ServerOnline bool `db:"server_online"`
	// The last reported state of each side, and the reason if it failed.
	ServerState  string `db:"server_state"`
	ServerReason string `db:"server_reason"`
	ClientState  string `db:"client_state"`
	ClientReason string `db:"client_reason"`
	// Target is TargetUnknown, TargetUp or TargetDown, as the client last reported, and TargetReason why
	// it is down.
	Target       string `db:"target"`
	TargetReason string `db:"target_reason"`
	// Draining means that the port accepts no new players, and that its players are cut off at
	// DrainUntil. Drained means that it has no players left.
	Draining   bool       `db:"draining"`
	Drained    bool       `db:"drained"`
	DrainUntil *time.Time `db:"drain_until"` // nil if it does not drain.
	// Retires is the id of the allocation whose old port this row keeps for the players who are still
	// on it; nil for an allocation proper. Such a row is only part of a [ServerState].
	Retires *int64 `db:"retires"`
	// RunID is what the allocations of a run of neighbouring ports have in common; nil if it was
	// allocated alone.
	RunID *uuid.UUID `db:"run_id"`
}

// allocationColumns are the columns of an Allocation, from allocationTables.
const allocationColumns = `a.id, a.device_id, a.server_id, a.protocol, a.port, a.local_host, a.local_port,
	a.name, a.enabled, a.proxy_protocol, a.udp_idle_seconds, a.player_addresses, a.rules, a.labels, d.organisation_id, a.created_at, a.server_state, a.server_reason,
	a.client_state, a.client_reason, a.target, a.target_reason, a.draining, a.drained, a.drain_until, a.retires, a.run_id, s.public_host,
	CASE WHEN s.resolved_host = s.public_host THEN s.public_addresses ELSE '' END AS public_addresses,
	coalesce(dr.lease_expires_at > now(), false) AS device_online,
	coalesce(sr.lease_expires_at > now(), false) AS server_online`

// allocationTables are allocations a with their tunnel client d, as in visible, and tunnel server s.
const allocationTables = ` FROM allocations a
	JOIN devices d ON d.id = a.device_id
	JOIN devices s ON s.id = a.server_id
	LEFT JOIN replicas dr ON dr.id = d.replica_id
	LEFT JOIN replicas sr ON sr.id = s.replica_id`

// allocationQuery reads Allocations.
const allocationQuery = `SELECT ` + allocationColumns + allocationTables

// Allocations lists the allocations of devices in scope, newest first. page.After need not exist
// any more.
func (d *DB) Allocations(ctx context.Context, scope Scope, page Page[int64]) ([]Allocation, error) {
	var allocations []Allocation
	err := d.requests.SelectContext(ctx, &allocations, allocationsQuery(scope), scope.args(page.After, page.Limit)...)
	return allocations, wrap(err, "list allocations")
}

// allocationsQuery reads a page of allocations. For those that few can see, an index of each device has their ids.
func allocationsQuery(scope Scope) string {
	const (
		after  = ` AND a.retires IS NULL AND ($4::bigint IS NULL OR a.id < $4)`
		newest = ` ORDER BY a.id DESC`
		limit  = ` LIMIT nullif($5::bigint, 0)`
	)
	if scope.All {
		return allocationQuery + ` WHERE ` + visible + after + newest + limit
	}
	return allocationQuery + ` WHERE a.id IN (SELECT a.id FROM ` + visibleDevices + ` AS v CROSS JOIN LATERAL (
			SELECT a.id FROM allocations a WHERE a.device_id = v.id` + after + newest + limit + `) AS a` + newest + limit + `)` + newest
}

// Allocation returns an allocation of a device in scope.
func (d *DB) Allocation(ctx context.Context, scope Scope, id int64) (Allocation, error) {
	var allocation Allocation
	err := d.requests.GetContext(ctx, &allocation,
		allocationQuery+` WHERE a.id = $4 AND a.retires IS NULL AND `+visible, scope.args(id)...)
	return allocation, wrap(err, "allocation %d", id)
}

// AllocationPatch changes the fields that are not nil.
type AllocationPatch struct {
	Name, LocalHost, ProxyProtocol  *string
	LocalPort, Port, UDPIdleSeconds *int
	PlayerAddresses                 *bool
	// Enabled pauses it with false, which disconnects its players, and resumes it with true.
	Enabled *bool
	Rules   RulesPatch
	// Labels replaces all labels.
	Labels *Labels
	// AnyPort allows a new Port outside the tunnel server's range beyond the quota of the device's owner.
	AnyPort bool
	// Move moves it to another tunnel server, and there to Port if that is not nil.
	Move *Move
}

// UpdateAllocation changes an allocation of a device that the scope manages, and notifies both sides. It returns
// [ErrPortTaken] if the new port belongs to another allocation, [ErrLoop] if the local target, or
// that of another allocation which moves with it, leads back to the port, a [QuotaError] if the device's owner
// would have too many ports outside the range by a new one, and the errors of [Move].
func (d *DB) UpdateAllocation(ctx context.Context, scope Scope, id int64, patch AllocationPatch) (Allocation, error) {
	var allocation Allocation
	err := d.requests.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
		hold, err := patch.holdQuota(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		port, changed, moves := patch.Port, []int64{id}, false
		if patch.Move != nil {
			moved, err := moveInScope(ctx, tx, scope, id, *patch.Move, port)
			if err != nil {
				return err
			}
			if moves = len(moved) > 0; moves {
				port, changed = nil, moved
			}
		}
		if !moves { // A move has checked it before it changed anything.
			if err := checkAllocation(ctx, tx, scope, id); err != nil {
				return err
			}
		}
		if err := hold.skipOwnPort(ctx, tx, id, port); err != nil {
			return err
		}
		if err := patch.write(ctx, tx, scope, id, port); err != nil {
			return err
		}
		var notified []uuid.UUID
		if patch.Enabled != nil {
			if notified, err = setEnabled(ctx, tx, *patch.Enabled, id); err != nil {
				return err
			}
		}
		if err := tx.GetContext(ctx, &allocation, allocationQuery+` WHERE a.id = $1`, id); err != nil {
			return err
		}
		if err := hold.checkAllocations(ctx, tx, changed); err != nil {
			return err
		}
		if port != nil {
			if err := checkOwnPort(ctx, tx, allocation); err != nil {
				return err
			}
		}
		// Nothing else makes it lead back.
		if patch.LocalHost != nil || patch.LocalPort != nil || patch.Port != nil || patch.Move != nil {
			if err := checkLoop(ctx, tx, changed); err != nil {
				return err
			}
		}
		notified = append(notified, allocation.DeviceID, allocation.ServerID)
		if patch.Rules != "" {
			retired, err := updateRetiredRules(ctx, tx, id)
			if err != nil {
				return err
			}
			notified = append(notified, retired...)
		}
		return notify(ctx, tx, notified...)
	})
	return allocation, wrap(err, "update allocation %d", id)
}

// write writes all but a move, to a row that has the tunnel server of the move already.
func (p AllocationPatch) write(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64, port *int) error {
	var updated int64
	// A new port resets the tunnel server's report, which was about the old port, and a new local
	// target what the client reported of the old one.
	err := tx.GetContext(ctx, &updated,
		`UPDATE allocations AS a SET
			name = coalesce($5, a.name),
			local_host = coalesce($6, a.local_host),
			local_port = coalesce($7, a.local_port),
			proxy_protocol = coalesce($8, a.proxy_protocol),
			udp_idle_seconds = coalesce($9, a.udp_idle_seconds),
			port = coalesce($10, a.port),
			player_addresses = coalesce($11, a.player_addresses),
			rules = `+patched("a.rules", "$12")+`,
			labels = coalesce($13::jsonb, a.labels),
			server_state = CASE WHEN $10 <> a.port THEN 'pending' ELSE a.server_state END,
			server_reason = CASE WHEN $10 <> a.port THEN '' ELSE a.server_reason END,
			target = CASE WHEN $6 <> a.local_host OR $7 <> a.local_port THEN 'unknown' ELSE a.target END,
			target_reason = CASE WHEN $6 <> a.local_host OR $7 <> a.local_port THEN '' ELSE a.target_reason END
		FROM devices d WHERE d.id = a.device_id AND a.id = $4 AND a.retires IS NULL AND `+manageable+` RETURNING a.id`,
		scope.args(id, p.Name, p.LocalHost, p.LocalPort, p.ProxyProtocol,
			p.UDPIdleSeconds, port, p.PlayerAddresses, p.Rules, p.Labels)...)
	return scope.refused(ctx, tx, err, allocationRow, id)
}

// holdQuota locks the quota of the owner whose device gets a requested port, and that device.
func (p AllocationPatch) holdQuota(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64) (quotaHold, error) {
	if p.Port == nil || p.AnyPort {
		return quotaHold{}, nil
	}
	var device uuid.UUID
	err := tx.GetContext(ctx, &device, `SELECT d.id FROM allocations a JOIN devices d ON d.id = a.device_id
		WHERE a.id = $4 AND a.retires IS NULL AND `+manageable, scope.args(id)...)
	if err := scope.refused(ctx, tx, err, allocationRow, id); err != nil {
		return quotaHold{}, err
	}
	hold, err := holdQuota(ctx, tx, Usage{PortsOutsideRange: 1}, ofDevice, device)
	if err != nil {
		return hold, err
	}
	owner, err := requireClient(ctx, tx, device)
	if err == nil && owner != hold.owner {
		err = errLostRace
	}
	return hold, err
}

// checkOwnPort returns ErrPortTaken if an allocation has the port on which its tunnel server accepts
// agents.
func checkOwnPort(ctx context.Context, tx *sqlx.Tx, a Allocation) error {
	var own bool
	err := tx.GetContext(ctx, &own, `SELECT relay_port = $2 FROM devices WHERE id = $1`, a.ServerID, a.Port)
	if err == nil && own {
		return ErrPortTaken
	}
	return err
}

// DeleteAllocation deletes an allocation of a device that the scope manages, which frees its port and its old ports,
// and notifies all sides.
func (d *DB) DeleteAllocation(ctx context.Context, scope Scope, id int64) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock prevents a concurrent move.
		var deviceID uuid.UUID
		err := tx.GetContext(ctx, &deviceID,
			`SELECT a.device_id FROM allocations a JOIN devices d ON d.id = a.device_id
			WHERE a.id = $4 AND a.retires IS NULL AND `+manageable+` FOR UPDATE OF a`, scope.args(id)...)
		if err := scope.refused(ctx, tx, err, allocationRow, id); err != nil {
			return err
		}
		if err := checkAllocation(ctx, tx, scope, id); err != nil {
			return err
		}
		var servers []uuid.UUID
		err = tx.SelectContext(ctx, &servers, `SELECT server_id FROM allocations WHERE id = $1 OR retires = $1`, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM allocations WHERE id = $1`, id); err != nil {
			return err
		}
		return notify(ctx, tx, append(servers, deviceID)...)
	})
	return wrap(err, "delete allocation %d", id)
}
