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

// longest is longer than any drain may last.
const longest = 366 * 24 * time.Hour

// drainBatch bounds what one [DB.AdvanceDrains] moves, so that it ends.
const drainBatch = 200

// DrainServer cordons a tunnel server in scope and has it take no new players, and those who play
// leave within limit. With move its allocations are to go elsewhere first, which [DB.AdvanceDrains] does.
// It returns [ErrConflict] where the device is no approved tunnel server.
func (d *DB) DrainServer(ctx context.Context, scope Scope, id uuid.UUID, limit time.Duration, move bool) (Device, error) {
	var device Device
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &device,
			`SELECT `+deviceColumns+` FROM devices d WHERE d.id = $4 AND `+visible+` FOR NO KEY UPDATE OF d`,
			scope.args(id)...)
		if err != nil {
			return err
		}
		if device.Kind != KindServer || device.ApprovedAt == nil {
			return ErrConflict
		}
		before := device.DrainUntil
		var until time.Time
		err = tx.GetContext(ctx, &until,
			`UPDATE devices SET cordoned = true, drain_until = now() + $2 * interval '1 second', drain_move = $3
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

// drainPorts gives the ports of a tunnel server their time: those that drain already, because of an
// earlier drain until before or of a move that would last longer, and with all every other too.
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

// refill has a tunnel server take players on its allocations again.
func refill(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID) error {
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

// Drained says that a tunnel server has found no player left on a port that drains.
type DrainedPort struct {
	// AllocationID is what the port is for, or was before that moved away.
	AllocationID int64
	// Until is when it was to end. A later drain is another.
	Until time.Time
}

// SaveDrained frees ports on which no player is left, and notifies those concerned. What is not true
// any more is ignored.
func (d *DB) SaveDrained(ctx context.Context, serverID uuid.UUID, ports []DrainedPort) error {
	ids := make([]int64, len(ports))
	untils := make([]time.Time, len(ports))
	for i, port := range ports {
		ids[i], untils[i] = port.AllocationID, port.Until
	}
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		return endDrains(ctx, tx,
			`SELECT a.id FROM allocations a
			JOIN unnest($2::bigint[], $3::timestamptz[]) AS p (id, until)
				ON p.id = coalesce(a.retires, a.id) AND p.until = a.drain_until
			WHERE a.server_id = $1 AND a.draining AND NOT a.drained ORDER BY a.id FOR UPDATE OF a`,
			serverID, pq.Array(ids), pq.Array(untils))
	})
	return wrap(err, "save what server %s has drained", serverID)
}

// endDrains ends the draining of the ports that a query finds and locks: nobody shall be on them any
// more. One that has been moved away from is free, one that has not is closed until its server takes
// players again.
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

// SavePlayers stores how many players a tunnel server carries.
func (d *DB) SavePlayers(ctx context.Context, serverID uuid.UUID, players int) error {
	_, err := d.pool.ExecContext(ctx,
		`UPDATE devices SET players = $2 WHERE id = $1 AND players IS DISTINCT FROM $2`, serverID, players)
	return wrap(err, "save players of server %s", serverID)
}

// AdvanceDrains does what draining has come to: it ends what has had its time, closes old ports that have
// been held open for long enough, and moves the allocations of tunnel servers that are to be rid of
// them. It is called again and again, on any replica: what one is at, another leaves alone. It reports
// whether there is more to do at once.
func (d *DB) AdvanceDrains(ctx context.Context) (more bool, err error) {
	var due bool
	// Nothing drains most of the time, and then this is all.
	err = d.pool.GetContext(ctx, &due,
		`SELECT EXISTS (SELECT 1 FROM allocations WHERE drain_until IS NOT NULL)
			OR EXISTS (SELECT 1 FROM devices WHERE drain_until IS NOT NULL)`)
	if err != nil || !due {
		return false, wrap(err, "look for drains")
	}
	err = d.tx(ctx, func(tx *sqlx.Tx) error {
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

// closeOldPorts closes the old ports of allocations that have moved to new players, where both sides
// are ready at the new place.
func (d *DB) closeOldPorts(ctx context.Context, ids []int64) error {
	return d.closePorts(ctx,
		`SELECT r.id FROM allocations r JOIN allocations a ON a.id = r.retires
		WHERE r.retires = ANY ($1::bigint[]) AND NOT r.draining AND a.server_state = 'ready' AND a.client_state = 'ready'
		ORDER BY r.id FOR NO KEY UPDATE OF r`, pq.Array(ids))
}

// closeHeldPorts closes the old ports for which the new place has had its time.
func (d *DB) closeHeldPorts(ctx context.Context) error {
	return d.closePorts(ctx,
		`SELECT id FROM allocations
		WHERE retires IS NOT NULL AND NOT draining AND created_at <= now() - $1 * interval '1 second'
		ORDER BY id FOR NO KEY UPDATE SKIP LOCKED`, HoldOpen.Seconds())
}

// closePorts has the ports that a query finds and locks take no new players.
func (d *DB) closePorts(ctx context.Context, query string, args ...any) error {
	return d.tx(ctx, func(tx *sqlx.Tx) error {
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

// emptyServers moves allocations away from tunnel servers that drain, and closes to new players those
// that find no other place, or shall not look for one.
func (d *DB) emptyServers(ctx context.Context) (more bool, err error) {
	var waiting []struct {
		ID       int64 `db:"id"`
		Draining bool  `db:"draining"`
		Move     bool  `db:"drain_move"`
	}
	// Those that have found no place before come last: they find one only if something has changed.
	err = d.pool.SelectContext(ctx, &waiting,
		`SELECT min(a.id) AS id, bool_and(a.draining) AS draining, d.drain_move
		FROM devices d JOIN allocations a ON a.server_id = d.id
		WHERE d.drain_until IS NOT NULL AND a.retires IS NULL AND (d.drain_move OR NOT a.draining)
		GROUP BY d.id, a.device_id, a.port ORDER BY 2, random() LIMIT $1`, drainBatch)
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
		case !errors.Is(err, ErrNoServer) && !errors.Is(err, ErrNoPorts):
			return false, err
		case w.Draining:
			return false, nil // And so it is with those behind it.
		}
		if err := d.drainInPlace(ctx, w.ID); err != nil {
			return false, err
		}
	}
	return len(waiting) == drainBatch && moved > 0, nil
}

// moveAway moves an allocation, with its group, from a tunnel server that drains to the best one.
func (d *DB) moveAway(ctx context.Context, id int64) error {
	return d.retryOnConflict(ctx, func(tx *sqlx.Tx) error {
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
			return err // Moved by another, or back in service.
		}
		// The server's own limit is what ends it.
		return g.move(ctx, tx, placementRequest{device: g.DeviceID, protocols: g.Protocols, rather: g.Port}, longest)
	})
}

// drainInPlace closes an allocation on a tunnel server that drains, with its group, to new players.
func (d *DB) drainInPlace(ctx context.Context, id int64) error {
	return d.tx(ctx, func(tx *sqlx.Tx) error {
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
