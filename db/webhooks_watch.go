package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The kinds of rows of webhook_watch.
const (
	watchOffline    = "offline"
	watchEnrollment = "enrollment"
	watchFailed     = "failed"
)

// finding is that a webhook is to be told of something, or to know or forget it: see webhook_watch.
type finding struct {
	WebhookID    int64     `db:"webhook_id"`
	DeviceID     uuid.UUID `db:"device_id"`     // uuid.Nil: it is of an allocation.
	AllocationID int64     `db:"allocation_id"` // 0: it is of a device.
	Wanted       bool      `db:"wanted"`        // The webhook wants to be told.
	// Of sweepFailed: what is to be done, and when the webhook is told.
	Step  string     `db:"step"`
	DueAt *time.Time `db:"due_at"`
}

// lockFindings locks the webhooks, devices and allocations of findings, and returns those findings of which it got all.
// It waits for nobody: what somebody else is changing or deleting is found again by the next sweep. With these locks, no
// other transaction has rows of webhook_watch or deliveries that the sweep writes: all that do have the webhook, or
// delete what the rows are of.
func lockFindings(ctx context.Context, tx *sqlx.Tx, found []finding) ([]finding, error) {
	if len(found) == 0 {
		return nil, nil
	}
	webhookIDs, deviceIDs, allocationIDs := findingColumns(found)
	var webhooks, allocations []int64
	var devices []uuid.UUID
	for _, lock := range []struct {
		into  any
		query string
		ids   any
	}{
		{&webhooks, `SELECT id FROM webhooks WHERE id = ANY ($1::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED`, webhookIDs},
		{&devices, `SELECT id FROM devices WHERE id = ANY ($1::uuid[]) ORDER BY id FOR KEY SHARE SKIP LOCKED`, deviceIDs},
		{&allocations, `SELECT id FROM allocations WHERE id = ANY ($1::bigint[]) ORDER BY id FOR KEY SHARE SKIP LOCKED`, allocationIDs},
	} {
		if err := tx.SelectContext(ctx, lock.into, lock.query, lock.ids); err != nil {
			return nil, err
		}
	}
	hasWebhook, hasDevice, hasAllocation := setOf(webhooks), setOf(devices), setOf(allocations)
	locked := make([]finding, 0, len(found))
	for _, f := range found {
		if hasWebhook[f.WebhookID] && (hasDevice[f.DeviceID] || hasAllocation[f.AllocationID]) {
			locked = append(locked, f)
		}
	}
	return locked, nil
}

func setOf[T comparable](list []T) map[T]bool {
	has := make(map[T]bool, len(list))
	for _, element := range list {
		has[element] = true
	}
	return has
}

// findingColumns returns arrays of the webhooks, devices and allocations of findings.
func findingColumns(findings []finding) (webhookIDs, deviceIDs, allocationIDs any) {
	var webhooks, allocations []int64
	var devices []uuid.UUID
	for _, f := range findings {
		webhooks, devices, allocations = append(webhooks, f.WebhookID), append(devices, f.DeviceID), append(allocations, f.AllocationID)
	}
	return pq.Array(webhooks), uuidArray(devices), pq.Array(allocations)
}

// noteFindings has webhooks know of findings, which lockFindings has returned.
func noteFindings(ctx context.Context, tx *sqlx.Tx, kind string, findings []finding) error {
	if len(findings) == 0 {
		return nil
	}
	webhooks, devices, allocations := findingColumns(findings)
	dueAt := make([]*time.Time, 0, len(findings))
	for _, f := range findings {
		dueAt = append(dueAt, f.DueAt)
	}
	_, err := tx.ExecContext(ctx,
		`INSERT INTO webhook_watch (webhook_id, kind, device_id, allocation_id, due_at)
		SELECT f.webhook, $1, nullif(f.device, $6), nullif(f.allocation, 0), f.due_at
		FROM unnest($2::bigint[], $3::uuid[], $4::bigint[], $5::timestamptz[]) AS f (webhook, device, allocation, due_at)`,
		kind, webhooks, devices, allocations, pq.Array(dueAt), uuid.Nil)
	return err
}

// forgetFindings has webhooks forget findings, which lockFindings has returned.
func forgetFindings(ctx context.Context, tx *sqlx.Tx, kind string, findings []finding) error {
	if len(findings) == 0 {
		return nil
	}
	webhooks, devices, allocations := findingColumns(findings)
	of, ids := `unnest($2::bigint[], $3::uuid[]) AS f (webhook, id) WHERE x.device_id = f.id`, devices
	if kind == watchFailed {
		of, ids = `unnest($2::bigint[], $3::bigint[]) AS f (webhook, id) WHERE x.allocation_id = f.id`, allocations
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM webhook_watch x USING `+of+` AND x.kind = $1 AND x.webhook_id = f.webhook`, kind, webhooks, ids)
	return err
}
