package db

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// Connection is a player who is connected to an allocation, as its tunnel server reports.
type Connection struct {
	ServerID uuid.UUID `db:"server_id"`
	// Number tells the connections of a tunnel server apart.
	Number       int64     `db:"number"`
	AllocationID int64     `db:"allocation_id"`
	DeviceID     uuid.UUID `db:"device_id"` // the tunnel client
	Protocol     string    `db:"protocol"`  // "tcp" or "udp"
	Source       string    `db:"source"`    // an address
	SourcePort   int       `db:"source_port"`
	Since        time.Time `db:"since"`
	// DownloadBytes are those from the game to the player, UploadBytes those from the player to the game.
	DownloadBytes int64 `db:"download_bytes"`
	UploadBytes   int64 `db:"upload_bytes"`
	// PlayerRoundTrip and TunnelRoundTrip are in milliseconds; nil if they are not known.
	PlayerRoundTrip *float32 `db:"player_rtt"`
	TunnelRoundTrip *float32 `db:"tunnel_rtt"`
	// UpdatedAt is when counts and round trips were last reported.
	UpdatedAt time.Time `db:"updated_at"`
}

const connectionColumns = `c.server_id, c.number, c.allocation_id, a.device_id, a.protocol, host(c.source) AS source, c.source_port,
	c.since, c.download_bytes, c.upload_bytes, c.player_rtt, c.tunnel_rtt, c.updated_at`

// connectionTables are connections c with their allocation a, tunnel client d, as in visible, and tunnel server s.
const connectionTables = ` FROM connections c
	JOIN allocations a ON a.id = c.allocation_id
	JOIN devices d ON d.id = a.device_id
	JOIN devices s ON s.id = c.server_id
	LEFT JOIN replicas sr ON sr.id = s.replica_id`

// currentConnection is the condition that a connection may still be there: its tunnel server is connected and has
// reported it, or it was within the last minute and may come back with it.
const currentConnection = `(CASE WHEN c.generation = s.generation
	THEN coalesce(sr.lease_expires_at > now(), false) OR greatest(s.last_seen_at, sr.renewed_at) > now() - interval '1 minute'
	ELSE s.last_seen_at > now() - interval '1 minute' END)`

// ConnectionPosition is the position of a connection in the list, which is sorted by these fields.
type ConnectionPosition struct {
	Since    time.Time
	ServerID uuid.UUID
	Number   int64
}

// ConnectionFilter selects connections that match all of its fields that are set.
type ConnectionFilter struct {
	AllocationID, OrganisationID *int64
	DeviceID, ServerID           *uuid.UUID
	Protocol                     string       // "" for any.
	Source                       netip.Prefix // The zero Prefix for any.
}

// Connections lists the connections to allocations of devices in scope, newest first. Those of a tunnel server that
// has not been connected for a minute are left out.
func (d *DB) Connections(ctx context.Context, scope Scope, filter ConnectionFilter, page Page[ConnectionPosition]) ([]Connection, error) {
	query, args := connectionsQuery(scope, filter, page)
	var connections []Connection
	err := d.requests.SelectContext(ctx, &connections, query, args...)
	return connections, wrap(err, "list connections")
}

func connectionsQuery(scope Scope, filter ConnectionFilter, page Page[ConnectionPosition]) (string, []any) {
	args := scope.args()
	conditions := []string{visible, currentConnection}
	where := func(condition string, values ...any) {
		for _, value := range values {
			args = append(args, value)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		conditions = append(conditions, condition)
	}
	if !scope.All {
		conditions = append(conditions, `d.id IN `+visibleDevices)
	}
	if filter.AllocationID != nil {
		where(`c.allocation_id = ?`, *filter.AllocationID)
	}
	if filter.DeviceID != nil {
		where(`a.device_id = ?`, *filter.DeviceID)
	}
	if filter.ServerID != nil {
		where(`c.server_id = ?`, *filter.ServerID)
	}
	if filter.OrganisationID != nil {
		where(`d.organisation_id = ?`, *filter.OrganisationID)
	}
	if filter.Protocol != "" {
		where(`a.protocol = ?`, filter.Protocol)
	}
	if filter.Source.IsValid() {
		where(`c.source <<= ?::inet`, filter.Source.Masked().String())
	}
	if page.After != nil {
		where(`(c.since, c.server_id, c.number) < (?::timestamptz, ?::uuid, ?)`, page.After.Since, page.After.ServerID, page.After.Number)
	}
	args = append(args, page.Limit)
	return `SELECT ` + connectionColumns + connectionTables + ` WHERE ` + strings.Join(conditions, ` AND `) +
		fmt.Sprintf(` ORDER BY c.since DESC, c.server_id DESC, c.number DESC LIMIT nullif($%d::bigint, 0)`, len(args)), args
}

// Connection returns a connection to an allocation of a device in scope.
func (d *DB) Connection(ctx context.Context, scope Scope, serverID uuid.UUID, number int64) (Connection, error) {
	var connection Connection
	err := d.requests.GetContext(ctx, &connection, `SELECT `+connectionColumns+connectionTables+
		` WHERE c.server_id = $4 AND c.number = $5 AND `+visible+` AND `+currentConnection, scope.args(serverID, number)...)
	return connection, wrap(err, "connection %d of server %s", number, serverID)
}

// CloseConnection cuts off a connection to an allocation of a device that the scope manages: its tunnel server is
// notified, and sent it until it has reported the end. With keepOut, which is then positive, its source is kept out of
// the allocation for that time, or for longer if it was already. It returns [ErrTooMany] if the allocation keeps
// [MaxKeptOut] others out.
func (d *DB) CloseConnection(ctx context.Context, scope Scope, serverID uuid.UUID, number int64, keepOut time.Duration) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var of struct {
			AllocationID int64  `db:"allocation_id"`
			Source       string `db:"source"`
			Managed      bool   `db:"managed"`
		}
		// Allocations are locked before anything of theirs.
		err := tx.GetContext(ctx, &of, `SELECT c.allocation_id, host(c.source) AS source, coalesce(`+manageable+`, false) AS managed`+connectionTables+
			` WHERE c.server_id = $4 AND c.number = $5 AND `+visible+` AND `+currentConnection+` FOR KEY SHARE OF a`, scope.args(serverID, number)...)
		if err != nil {
			return err
		}
		if !of.Managed {
			return ErrForbidden
		}
		servers := []uuid.UUID{serverID}
		if keepOut > 0 {
			if err := keepOutOf(ctx, tx, of.AllocationID, of.Source, keepOut); err != nil {
				return err
			}
			if servers, err = serversOf(ctx, tx, of.AllocationID, servers); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE connections SET cut_at = now() WHERE server_id = $1 AND number = $2 AND cut_at IS NULL`, serverID, number)
		if err != nil {
			return err
		}
		return notify(ctx, tx, servers...)
	})
	return wrap(err, "close connection %d of server %s", number, serverID)
}

// CutConnections returns the numbers of the connections of a tunnel server that were cut off and have not ended: those
// whose source is kept out, or the others.
func (d *DB) CutConnections(ctx context.Context, serverID uuid.UUID, keptOut bool) ([]int64, error) {
	var numbers []int64
	err := d.devices.SelectContext(ctx, &numbers, `SELECT c.number FROM connections c WHERE c.server_id = $1 AND c.cut_at IS NOT NULL
		AND $2 = EXISTS (SELECT FROM kept_out k WHERE k.allocation_id = c.allocation_id AND k.source >>= c.source AND k.until > now())
		ORDER BY c.number`, serverID, keptOut)
	return numbers, wrap(err, "cut connections of server %s", serverID)
}

// forgetPlayers deletes connections of tunnel servers that have not been connected for a minute, and sources whose
// time is over. It waits for no row: those who have it may wait for another one that goes with the same allocation.
func forgetPlayers(ctx context.Context, tx *sqlx.Tx) error {
	for _, statement := range []string{
		`DELETE FROM connections WHERE (server_id, number) IN (
			SELECT c.server_id, c.number FROM connections c JOIN devices s ON s.id = c.server_id
			LEFT JOIN replicas sr ON sr.id = s.replica_id WHERE NOT ` + currentConnection + ` FOR UPDATE OF c SKIP LOCKED)`,
		`DELETE FROM kept_out WHERE (allocation_id, source) IN (
			SELECT allocation_id, source FROM kept_out WHERE until <= now() FOR UPDATE SKIP LOCKED)`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
