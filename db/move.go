package db

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Move moves an allocation to another tunnel server, together with that of the other protocol on the
// same port and the rest of its run, whose ports stay neighbours. The old port stays open until both
// sides are ready at the new one, at most for [HoldOpen]. After that it only serves the players who are
// on it, until they leave or Linger has passed.
//
// Errors: those of [DB.CreateAllocations] about the tunnel server and the port, and [ErrOffline] if
// the tunnel server is not online.
type Move struct {
	ServerID uuid.UUID
	// OnCordoned allows the tunnel server to be cordoned.
	OnCordoned bool
	// KeepPortFrom is the lowest port that the allocation keeps if it is free on the new tunnel
	// server. Otherwise the allocation gets a port of the range, unless one is requested.
	KeepPortFrom int
	// Linger is how long players may stay on the old port, unless its tunnel server drains sooner.
	Linger time.Duration
}

// HoldOpen is the maximum time for which the old port of a moved allocation accepts new players while
// the new port is being opened and linked.
const HoldOpen = 15 * time.Second

// moveInScope moves an allocation, and returns the ids of those that have moved: none if it is on the
// tunnel server already.
func moveInScope(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64, move Move, port *int) ([]int64, error) {
	var managed bool
	err := tx.GetContext(ctx, &managed,
		`SELECT true FROM allocations a JOIN devices d ON d.id = a.device_id
		WHERE a.id = $4 AND a.retires IS NULL AND `+manageable, scope.args(id)...)
	if err := scope.refused(ctx, tx, err, allocationRow, id); err != nil {
		return nil, err
	}
	group, err := readGroup(ctx, tx, id)
	if err != nil || group.ServerID == move.ServerID {
		return nil, err
	}
	request := placementRequest{
		device: group.DeviceID, server: &move.ServerID, onCordoned: move.OnCordoned, online: true,
		protocols: group.Protocols, count: group.count(),
	}
	if port != nil {
		request.port = *port
	} else if group.Port >= move.KeepPortFrom {
		request.preferredPort = group.Port
	}
	request.check = func() error { return checkAllocation(ctx, tx, scope, id) }
	return group.IDs, group.move(ctx, tx, request, move.Linger)
}

// group is the allocations of a device on a tunnel server that move together: those of one port, one for
// each protocol, or those of a run.
type group struct {
	DeviceID  uuid.UUID      `db:"device_id"`
	ServerID  uuid.UUID      `db:"server_id"`
	Port      int            `db:"port"`      // The lowest one.
	LastPort  int            `db:"last_port"` // The highest one.
	IDs       pq.Int64Array  `db:"ids"`
	Protocols pq.StringArray `db:"protocols"`
	Draining  bool           `db:"draining"`
	Drained   bool           `db:"drained"`
}

// groupKey identifies the group of allocation a.
const groupKey = `a.device_id, a.server_id, a.run_id, CASE WHEN a.run_id IS NULL THEN a.port END`

// readGroup reads the group of an allocation.
func readGroup(ctx context.Context, tx *sqlx.Tx, id int64) (group, error) {
	var g group
	err := tx.GetContext(ctx, &g,
		`SELECT a.device_id, a.server_id, min(a.port) AS port, max(a.port) AS last_port,
			array_agg(a.id ORDER BY a.id) AS ids, array_agg(DISTINCT a.protocol) AS protocols,
			bool_and(a.draining) AS draining, bool_and(a.drained) AS drained
		FROM allocations a
		JOIN allocations b ON b.id = $1 AND b.retires IS NULL AND b.device_id = a.device_id AND b.server_id = a.server_id
			AND b.run_id IS NOT DISTINCT FROM a.run_id AND (a.run_id IS NOT NULL OR b.port = a.port)
		WHERE a.retires IS NULL GROUP BY `+groupKey, id)
	return g, err
}

// count returns the number of ports from the lowest to the highest.
func (g group) count() int { return g.LastPort - g.Port + 1 }

// move moves the group to a placement that satisfies the request. As everywhere, it locks devices
// before allocations, and allocations in the order of their ids.
func (g group) move(ctx context.Context, tx *sqlx.Tx, request placementRequest, linger time.Duration) error {
	if _, err := requireClient(ctx, tx, g.DeviceID); err != nil {
		return err
	}
	server, err := reserveServer(ctx, tx, request)
	if err != nil {
		return err
	}
	if err := g.lock(ctx, tx); err != nil {
		return err
	}
	if request.check != nil {
		if err := request.check(); err != nil {
			return err
		}
	}
	// If the group moves back to a tunnel server on which its old port is still open, it gets that
	// port again and its players stay.
	var former []int
	err = tx.SelectContext(ctx, &former,
		`DELETE FROM allocations o USING allocations a
		WHERE o.server_id = $1 AND o.retires = ANY ($2) AND a.id = o.retires RETURNING o.port - (a.port - $3)`,
		server, g.IDs, g.Port)
	if err != nil {
		return err
	}
	if len(former) > 0 {
		request.preferredPort = former[0]
	}
	port, err := choosePort(ctx, tx, server, request)
	if errors.Is(err, ErrNoPorts) && request.server == nil {
		return errLostRace // Its last port was taken; another tunnel server may have one.
	}
	if err != nil {
		return err
	}
	at := placement{server: server, port: port, requested: request.server != nil && request.port != 0}
	_, err = tx.ExecContext(ctx,
		`UPDATE allocations SET server_id = $1, port = port + $2, draining = false, drained = false, drain_until = NULL,
			server_state = 'pending', server_reason = '', client_state = 'pending', client_reason = ''
		WHERE id = ANY ($3)`, server, port-g.Port, g.IDs)
	if err != nil {
		return at.conflict(err)
	}
	if err := g.retire(ctx, tx, port, linger); err != nil {
		return err
	}
	return notify(ctx, tx, g.DeviceID, g.ServerID, server)
}

// lock locks the rows of the group. It returns errLostRace if they have changed since the group was
// read.
func (g group) lock(ctx context.Context, tx *sqlx.Tx) error {
	var locked []int64
	err := tx.SelectContext(ctx, &locked,
		`SELECT id FROM allocations WHERE id = ANY ($1) OR retires = ANY ($1) ORDER BY id FOR UPDATE`, g.IDs)
	if err != nil {
		return err
	}
	now, err := readGroup(ctx, tx, g.IDs[0])
	if errors.Is(err, sql.ErrNoRows) || err == nil && !reflect.DeepEqual(now, g) {
		return errLostRace
	}
	return err
}

// retire keeps the old ports of a group that has moved to port for the players who are on them. Ports
// without players, and those of paused allocations, are freed at once.
func (g group) retire(ctx context.Context, tx *sqlx.Tx, port int, linger time.Duration) error {
	if g.Drained {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name,
			proxy_protocol, udp_idle_seconds, player_addresses, rules, retires, drain_until, draining)
		SELECT a.device_id, $2, a.protocol, a.port - $3, a.local_host, a.local_port, a.name,
			a.proxy_protocol, a.udp_idle_seconds, a.player_addresses, a.rules, a.id,
			least(now() + $4 * interval '1 second', (SELECT d.drain_until FROM devices d WHERE d.id = $2)), $5
		FROM allocations a WHERE a.id = ANY ($1) AND a.enabled ORDER BY a.id`,
		g.IDs, g.ServerID, port-g.Port, linger.Seconds(), g.Draining)
	return err
}
