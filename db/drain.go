package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// maxDrain is longer than any drain.
const maxDrain = 366 * 24 * time.Hour

// drainBatch is the maximum number of groups that one [DB.AdvanceDrains] moves.
const drainBatch = 200

// DrainServer cordons a tunnel server that the scope manages and closes it to new players. Its players are cut off
// after limit. With move, its allocations first move to other tunnel servers, which
// [DB.AdvanceDrains] does. It returns [ErrConflict] if the device is not an approved tunnel server.
func (d *DB) DrainServer(ctx context.Context, scope Scope, id uuid.UUID, limit time.Duration, move bool) (Device, error) {
	var device Device
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &device,
			`SELECT `+deviceColumns+` FROM devices d WHERE d.id = $4 AND `+manageable+` FOR NO KEY UPDATE OF d`,
			scope.args(id)...)
		if err := scope.refused(ctx, tx, err, deviceRow, id); err != nil {
			return err
		}
		if device.Kind != KindServer || device.ApprovedAt == nil {
			return ErrConflict
		}
		before := device.DrainUntil
		var until time.Time
		err = tx.GetContext(ctx, &until,
			`UPDATE devices SET cordoned = true, drain_until = now() + $2 * interval '1 second', drain_move = $3,
				drain_total = CASE WHEN drain_until IS NOT NULL THEN drain_total
					ELSE (SELECT count(*) FROM allocations a WHERE a.server_id = $1 AND a.retires IS NULL) END
			WHERE id = $1 RETURNING drain_until`, id, limit.Seconds(), move)
		if err != nil {
			return err
		}
		if err := drainPorts(ctx, tx, id, until, before, !move); err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &device, `SELECT `+deviceColumns+` FROM devices d WHERE d.id = $1`, id); err != nil {
			return err
		}
		return notify(ctx, tx, id)
	})
	return device, wrap(err, "drain server %s", id)
}

// drainPorts sets the time until which the ports of a tunnel server drain. It changes ports that
// already drain, because of an earlier drain that ends at before or because of a move that ends
// later, and with all every other port too.
func drainPorts(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID, until time.Time, before *time.Time, all bool) error {
	_, err := tx.ExecContext(ctx,
		`WITH locked AS (SELECT id FROM allocations WHERE server_id = $1 ORDER BY id FOR NO KEY UPDATE)
		UPDATE allocations a SET
			drain_until = CASE WHEN a.retires IS NULL OR a.drain_until = $3::timestamptz THEN $2
				ELSE least(a.drain_until, $2) END,
			draining = a.draining OR (a.retires IS NULL AND $4)
		FROM locked WHERE a.id = locked.id AND NOT a.drained AND (a.drain_until IS NOT NULL OR $4)`,
		serverID, until, before, all)
	return err
}

// reopenPorts makes a tunnel server accept players on its allocations again.
func reopenPorts(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID) error {
	_, err := tx.ExecContext(ctx,
		`WITH locked AS (
			SELECT id FROM allocations WHERE server_id = $1 AND retires IS NULL AND drain_until IS NOT NULL
			ORDER BY id FOR NO KEY UPDATE)
		UPDATE allocations a SET draining = false, drained = false, drain_until = NULL,
			server_state = CASE WHEN a.drained THEN 'pending' ELSE a.server_state END
		FROM locked WHERE a.id = locked.id`, serverID)
	if err != nil {
		return err
	}
	return notify(ctx, tx, serverID)
}

// DrainedPort is a tunnel server's report that a draining port has no players left.
type DrainedPort struct {
	// AllocationID is the allocation to which the port belongs, or belonged before it moved away.
	AllocationID int64
	// Until identifies the drain by the time at which it ends.
	Until time.Time
}

// SaveDrained frees ports without players, and notifies the devices concerned. It ignores reports on
// drains that are no longer current.
func (d *DB) SaveDrained(ctx context.Context, serverID uuid.UUID, ports []DrainedPort) error {
	ids := make([]int64, len(ports))
	untils := make([]time.Time, len(ports))
	for i, port := range ports {
		ids[i], untils[i] = port.AllocationID, port.Until
	}
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		return endDrains(ctx, tx,
			`SELECT a.id FROM allocations a
			JOIN unnest($2::bigint[], $3::timestamptz[]) AS p (id, until)
				ON p.id = coalesce(a.retires, a.id) AND p.until = a.drain_until
			WHERE a.server_id = $1 AND a.draining AND NOT a.drained ORDER BY a.id FOR UPDATE OF a`,
			serverID, pq.Array(ids), pq.Array(untils))
	})
	return wrap(err, "save what server %s has drained", serverID)
}

// endDrains ends the drain of the ports that a query selects and locks. The old port of a moved
// allocation is freed; any other is closed until its tunnel server accepts players again.
func endDrains(ctx context.Context, tx *sqlx.Tx, query string, args ...any) error {
	var changed []uuid.UUID
	err := tx.SelectContext(ctx, &changed,
		`WITH due AS (`+query+`),
		freed AS (
			DELETE FROM allocations a USING due WHERE a.id = due.id AND a.retires IS NOT NULL
			RETURNING a.server_id, a.device_id),
		closed AS (
			UPDATE allocations a SET draining = true, drained = true FROM due
			WHERE a.id = due.id AND a.retires IS NULL RETURNING a.server_id)
		SELECT server_id FROM freed UNION SELECT device_id FROM freed UNION SELECT server_id FROM closed`, args...)
	if err != nil {
		return err
	}
	return notify(ctx, tx, changed...)
}

// SavePlayers stores the number of players on a tunnel server.
func (d *DB) SavePlayers(ctx context.Context, serverID uuid.UUID, players int) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE devices SET players = $2 WHERE id = $1 AND players IS DISTINCT FROM $2`, serverID, players)
	return wrap(err, "save players of server %s", serverID)
}

// AdvanceDrains ends drains whose time has passed, closes old ports that have been held open for long
// enough, and moves allocations away from draining tunnel servers. Every replica calls it
// periodically; row locks keep replicas apart. It reports whether there is more to do at once.
func (d *DB) AdvanceDrains(ctx context.Context) (more bool, err error) {
	var due bool
	// Most of the time nothing drains, and this is the only query.
	err = d.devices.GetContext(ctx, &due,
		`SELECT EXISTS (SELECT 1 FROM allocations WHERE drain_until IS NOT NULL AND NOT drained)
			OR EXISTS (SELECT 1 FROM devices WHERE drain_until IS NOT NULL)`)
	if err != nil || !due {
		return false, wrap(err, "look for drains")
	}
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		return endDrains(ctx, tx,
			`SELECT id FROM allocations WHERE drain_until <= now() AND NOT drained ORDER BY id FOR UPDATE SKIP LOCKED`)
	})
	if err != nil {
		return false, wrap(err, "end drains")
	}
	if err := d.closeHeldPorts(ctx); err != nil {
		return false, wrap(err, "close old ports")
	}
	more, err = d.emptyServers(ctx)
	return more, wrap(err, "empty draining servers")
}

// closeOldPorts closes the old ports of moved allocations to new players if both sides are ready at
// the new port.
func (d *DB) closeOldPorts(ctx context.Context, ids []int64) error {
	return d.closePorts(ctx,
		`SELECT r.id FROM allocations r JOIN allocations a ON a.id = r.retires
		WHERE r.retires = ANY ($1::bigint[]) AND NOT r.draining AND a.server_state = 'ready' AND a.client_state = 'ready'
		ORDER BY r.id FOR NO KEY UPDATE OF r`, pq.Array(ids))
}

// closeHeldPorts closes the old ports that have been held open for [HoldOpen].
func (d *DB) closeHeldPorts(ctx context.Context) error {
	return d.closePorts(ctx,
		`SELECT id FROM allocations
		WHERE retires IS NOT NULL AND NOT draining AND created_at <= now() - $1 * interval '1 second'
		ORDER BY id FOR NO KEY UPDATE SKIP LOCKED`, HoldOpen.Seconds())
}

// closePorts closes the ports that a query selects and locks to new players.
func (d *DB) closePorts(ctx context.Context, query string, args ...any) error {
	return d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		var servers []uuid.UUID
		err := tx.SelectContext(ctx, &servers,
			`WITH due AS (`+query+`)
			UPDATE allocations a SET draining = true FROM due WHERE a.id = due.id RETURNING a.server_id`, args...)
		if err != nil {
			return err
		}
		return notify(ctx, tx, servers...)
	})
}

// emptyServers moves allocations away from draining tunnel servers. It closes those to new players
// that find no other placement, or should not move.
func (d *DB) emptyServers(ctx context.Context) (more bool, err error) {
	var waiting []struct {
		ID       int64 `db:"id"`
		Draining bool  `db:"draining"`
		Move     bool  `db:"drain_move"`
	}
	// Those that found no placement before come last: they find one only if something has changed.
	err = d.devices.SelectContext(ctx, &waiting,
		`SELECT min(a.id) AS id, bool_and(a.draining) AS draining, d.drain_move
		FROM devices d JOIN allocations a ON a.server_id = d.id
		WHERE d.drain_until IS NOT NULL AND a.retires IS NULL AND (d.drain_move OR NOT a.draining)
		GROUP BY d.id, `+groupKey+` ORDER BY 2, random() LIMIT $1`, drainBatch)
	if err != nil {
		return false, err
	}
	moved := 0
	for _, w := range waiting {
		err := ErrNoServer
		if w.Move {
			err = d.moveAway(ctx, w.ID)
		}
		switch {
		case err == nil:
			moved++
			continue
		case !errors.Is(err, ErrNoServer) && !errors.Is(err, ErrNoPorts) && !errors.Is(err, ErrLoop):
			return false, err
		case w.Draining && errors.Is(err, ErrLoop):
			continue // The rest may move.
		case w.Draining:
			return false, nil // The rest have found no placement before either.
		}
		if err := d.drainInPlace(ctx, w.ID); err != nil {
			return false, err
		}
	}
	return len(waiting) == drainBatch && moved > 0, nil
}

// moveAway moves the group of an allocation from a draining tunnel server to the best one, or returns
// [ErrLoop] if a local target leads back to its port there.
func (d *DB) moveAway(ctx context.Context, id int64) error {
	return d.devices.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
		g, err := readGroup(ctx, tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // Deleted.
		}
		if err != nil {
			return err
		}
		var move bool
		err = tx.GetContext(ctx, &move, `SELECT drain_move FROM devices WHERE id = $1 FOR SHARE`, g.ServerID)
		if err != nil || !move {
			return err // Moved by another replica, or no longer draining.
		}
		rules, err := rulesOf(ctx, tx, g.IDs)
		if err != nil {
			return err
		}
		// The drain of the tunnel server ends it sooner.
		err = g.move(ctx, tx, placementRequest{
			device: g.DeviceID, protocols: g.Protocols, count: g.count(), preferredPort: g.Port, rules: rules,
		}, maxDrain)
		if err != nil {
			return err
		}
		return checkLoop(ctx, tx, g.IDs)
	})
}

// drainInPlace closes the group of an allocation on a draining tunnel server to new players.
func (d *DB) drainInPlace(ctx context.Context, id int64) error {
	return d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		g, err := readGroup(ctx, tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		var until *time.Time
		err = tx.GetContext(ctx, &until, `SELECT drain_until FROM devices WHERE id = $1 FOR SHARE`, g.ServerID)
		if err != nil || until == nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`WITH locked AS (
				SELECT id FROM allocations WHERE id = ANY ($1) AND server_id = $2 ORDER BY id FOR NO KEY UPDATE)
			UPDATE allocations a SET draining = true, drain_until = $3 FROM locked WHERE a.id = locked.id`,
			g.IDs, g.ServerID, *until)
		if err != nil {
			return err
		}
		return notify(ctx, tx, g.ServerID)
	})
}
