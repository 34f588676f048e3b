package db

import (
	"context"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// BulkAction is what [DB.BulkAllocations] does with each allocation.
type BulkAction string

// The bulk actions.
const (
	BulkPause  BulkAction = "pause"
	BulkResume BulkAction = "resume"
	BulkDelete BulkAction = "delete"
)

// BulkAllocations pauses, resumes or deletes, in one transaction, those of the allocations whose devices the scope
// manages, and notifies each device concerned once. It returns why it left out others, by id: [ErrNotFound], or
// [ErrForbidden] for those that the scope sees only. On an error it has done nothing.
func (d *DB) BulkAllocations(ctx context.Context, scope Scope, action BulkAction, ids []int64) (refused map[int64]error, err error) {
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var managed []int64
		if managed, refused, err = manageAllocations(ctx, tx, scope, ids); err != nil {
			return err
		}
		// Deleting needs them before.
		notified, err := devicesOf(ctx, tx, managed)
		if err != nil {
			return err
		}
		if action == BulkDelete {
			_, err = tx.ExecContext(ctx, `DELETE FROM allocations WHERE id = ANY ($1)`, pq.Array(managed))
		} else {
			_, err = setEnabled(ctx, tx, action == BulkResume, managed...)
		}
		if err != nil {
			return err
		}
		return notify(ctx, tx, notified...)
	})
	return refused, wrap(err, "%s %d allocations", action, len(ids))
}

// manageAllocations locks those of the allocations that the scope manages, with their old ports, and returns them, and
// why the others are none of them.
func manageAllocations(ctx context.Context, tx *sqlx.Tx, scope Scope, ids []int64) (managed []int64, refused map[int64]error, err error) {
	var visibles []struct {
		ID      int64 `db:"id"`
		Managed bool  `db:"managed"`
	}
	err = tx.SelectContext(ctx, &visibles,
		`SELECT a.id, coalesce(`+manageable+`, false) AS managed FROM allocations a JOIN devices d ON d.id = a.device_id
		WHERE a.id = ANY ($4) AND a.retires IS NULL AND `+visible, scope.args(pq.Array(ids))...)
	if err != nil {
		return nil, nil, err
	}
	refused = make(map[int64]error, len(ids))
	for _, id := range ids {
		refused[id] = ErrNotFound
	}
	var candidates []int64
	for _, a := range visibles {
		if a.Managed {
			candidates = append(candidates, a.ID)
		} else {
			refused[a.ID] = ErrForbidden
		}
	}
	// Allocations are always locked in the order of their ids, which avoids deadlocks.
	_, err = tx.ExecContext(ctx,
		`SELECT id FROM allocations WHERE id = ANY ($1) OR retires = ANY ($1) ORDER BY id FOR UPDATE`, pq.Array(candidates))
	if err != nil {
		return nil, nil, err
	}
	// Meanwhile a device may have got another owner.
	err = tx.SelectContext(ctx, &managed,
		`SELECT a.id FROM allocations a JOIN devices d ON d.id = a.device_id
		WHERE a.id = ANY ($4) AND a.retires IS NULL AND `+manageable+` ORDER BY a.id`, scope.args(pq.Array(candidates))...)
	for _, id := range managed {
		delete(refused, id)
	}
	return managed, refused, err
}

// devicesOf returns the devices of allocations, and the tunnel servers on which they have ports.
func devicesOf(ctx context.Context, tx *sqlx.Tx, allocations []int64) (devices []uuid.UUID, err error) {
	err = tx.SelectContext(ctx, &devices,
		`SELECT device_id FROM allocations WHERE id = ANY ($1) UNION SELECT server_id FROM allocations WHERE id = ANY ($1) OR retires = ANY ($1)`,
		pq.Array(allocations))
	return devices, err
}
