package db

import (
	"context"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// setEnabled pauses or resumes allocations, and returns the devices to notify besides their own and their tunnel
// servers. A paused allocation keeps its port, loses its old ports, and is in no desired state; the table's triggers
// keep it closed, also from replicas that do not know of it. One that is resumed has reported nothing yet, and drains
// if its tunnel server does.
func setEnabled(ctx context.Context, tx *sqlx.Tx, enabled bool, ids ...int64) ([]uuid.UUID, error) {
	// Allocations are always locked in the order of their ids, which avoids deadlocks.
	_, err := tx.ExecContext(ctx,
		`SELECT 1 FROM allocations WHERE id = ANY ($1) OR retires = ANY ($1) ORDER BY id FOR UPDATE`, pq.Array(ids))
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx,
		`UPDATE allocations a SET enabled = $2,
			draining = s.drain_until IS NOT NULL, drained = false, drain_until = s.drain_until,
			server_state = 'pending', server_reason = '', client_state = 'pending', client_reason = '',
			target = 'unknown', target_reason = ''
		FROM devices s WHERE s.id = a.server_id AND a.id = ANY ($1) AND a.enabled <> $2`, pq.Array(ids), enabled)
	if err != nil || enabled {
		return nil, err
	}
	var servers []uuid.UUID
	err = tx.SelectContext(ctx, &servers, `DELETE FROM allocations WHERE retires = ANY ($1) RETURNING server_id`, pq.Array(ids))
	return servers, err
}
