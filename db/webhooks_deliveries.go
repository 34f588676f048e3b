package db

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// The states of a [WebhookDelivery].
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed"
	DeliveryDropped   = "dropped" // Not sent: the queue was full, or the webhook was disabled.
)

const (
	// maxPendingDeliveries is how many messages of a webhook wait at most. Beyond that, the oldest are dropped.
	maxPendingDeliveries = 1000
	// maxKeptDeliveries is how many deliveries of a webhook are kept at most, and deliveryRetention for how long.
	maxKeptDeliveries = 1000
	deliveryRetention = 30 * 24 * time.Hour
)

// WebhookDelivery is a message of a webhook.
type WebhookDelivery struct {
	ID        int64     `db:"id"`
	WebhookID int64     `db:"webhook_id"`
	MessageID string    `db:"message_id"` // The same in all attempts and redeliveries.
	Type      string    `db:"type"`
	Payload   string    `db:"payload"` // JSON.
	CreatedAt time.Time `db:"created_at"`
	State     string    `db:"state"`
	// NextAt is when it is sent next; nil if it is not.
	NextAt   *time.Time `db:"next_at"`
	Attempts int        `db:"attempts"`
	// The last attempt; nil and empty before the first. Status is nil if no response came.
	AttemptedAt *time.Time `db:"attempted_at"`
	Status      *int       `db:"status"`
	Error       string     `db:"error"`
	DurationMS  *int       `db:"duration_ms"`
}

const deliveryColumns = `v.id, v.webhook_id, v.message_id, v.type, v.payload, v.created_at, v.state, v.next_at, v.attempts,
	v.attempted_at, v.status, v.error, v.duration_ms`

// WebhookMessage is what a webhook is told.
type WebhookMessage struct {
	WebhookID             int64
	ID, Type, PayloadJSON string
}

// queueMessages has messages sent at a time. Beyond maxPendingDeliveries of a webhook, the oldest are dropped.
func queueMessages(ctx context.Context, tx *sqlx.Tx, messages []WebhookMessage, at time.Time) error {
	if len(messages) == 0 {
		return nil
	}
	var webhooks []int64
	var ids, types, payloads []string
	for _, m := range messages {
		webhooks, ids, types, payloads = append(webhooks, m.WebhookID), append(ids, m.ID), append(types, m.Type), append(payloads, m.PayloadJSON)
	}
	_, err := tx.ExecContext(ctx,
		`INSERT INTO webhook_deliveries (webhook_id, message_id, type, payload, created_at, state, next_at)
		SELECT m.*, $5, 'pending', $5 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS m`,
		pq.Array(webhooks), pq.Array(ids), pq.Array(types), pq.Array(payloads), stamp(at))
	if err != nil {
		return err
	}
	return dropSurplus(ctx, tx, webhooks...)
}

// dropSurplus drops the oldest messages of webhooks beyond maxPendingDeliveries of each.
func dropSurplus(ctx context.Context, tx *sqlx.Tx, webhooks ...int64) error {
	_, err := tx.ExecContext(ctx,
		`UPDATE webhook_deliveries v SET state = 'dropped', next_at = NULL, error = 'too many messages waited'
		FROM (SELECT DISTINCT unnest($1::bigint[]) AS id) AS w CROSS JOIN LATERAL (
			SELECT p.id FROM webhook_deliveries p WHERE p.webhook_id = w.id AND p.next_at IS NOT NULL
			ORDER BY p.id DESC OFFSET $2) AS old WHERE v.id = old.id`,
		pq.Array(webhooks), maxPendingDeliveries)
	return err
}

// WebhookDeliveries lists the deliveries of a webhook of an owner whom the scope manages, newest first. It returns
// [ErrNotFound] if the webhook is not one. page.After need not exist any more.
func (d *DB) WebhookDeliveries(ctx context.Context, scope Scope, webhookID int64, page Page[int64]) ([]WebhookDelivery, error) {
	var deliveries []WebhookDelivery
	err := d.requests.snapshot(ctx, func(tx *sqlx.Tx) error {
		var found int64
		err := tx.GetContext(ctx, &found, `SELECT w.id FROM webhooks w WHERE w.id = $3 AND `+webhookManaged, scope.All, scope.account(), webhookID)
		if err != nil {
			return err
		}
		return tx.SelectContext(ctx, &deliveries,
			`SELECT `+deliveryColumns+` FROM webhook_deliveries v WHERE v.webhook_id = $1 AND ($2::bigint IS NULL OR v.id < $2)
			ORDER BY v.id DESC LIMIT nullif($3::bigint, 0)`, webhookID, page.After, page.Limit)
	})
	return deliveries, wrap(err, "list deliveries of webhook %d", webhookID)
}

// Redeliver has the message of a delivery sent again, at a time, as another delivery with the same message id, which
// it returns; or, if that is pending, sooner. The webhook's owner must be one whom the scope manages. It returns
// [ErrNoDelivery] if the webhook has no such delivery, and [ErrWebhookDisabled].
func (d *DB) Redeliver(ctx context.Context, scope Scope, webhookID, id int64, at time.Time) (WebhookDelivery, error) {
	var delivery WebhookDelivery
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var enabled bool
		err := tx.GetContext(ctx, &enabled, `SELECT w.enabled FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` FOR NO KEY UPDATE`,
			scope.All, scope.account(), webhookID)
		if err != nil {
			return err
		}
		var before []WebhookDelivery
		err = tx.SelectContext(ctx, &before, `SELECT `+deliveryColumns+` FROM webhook_deliveries v WHERE v.webhook_id = $1 AND v.id = $2`, webhookID, id)
		switch {
		case err != nil:
			return err
		case len(before) == 0:
			return ErrNoDelivery
		case !enabled:
			return ErrWebhookDisabled
		}
		if _, err := tx.ExecContext(ctx, `UPDATE webhooks SET held_until = NULL WHERE id = $1`, webhookID); err != nil {
			return err
		}
		if before[0].NextAt != nil {
			return tx.GetContext(ctx, &delivery,
				`UPDATE webhook_deliveries v SET next_at = least(v.next_at, $2) WHERE v.id = $1 RETURNING `+deliveryColumns, id, stamp(at))
		}
		err = tx.GetContext(ctx, &delivery,
			`INSERT INTO webhook_deliveries AS v (webhook_id, message_id, type, payload, created_at, state, next_at)
			SELECT webhook_id, message_id, type, payload, $2, 'pending', $2 FROM webhook_deliveries WHERE id = $1
			RETURNING `+deliveryColumns, id, stamp(at))
		if err != nil {
			return err
		}
		return dropSurplus(ctx, tx, webhookID)
	})
	return delivery, wrap(err, "redeliver %d of webhook %d", id, webhookID)
}

// testsPerMinute is how many tests of a webhook may begin in one minute.
const testsPerMinute = 6

// BeginWebhookTest stores the message of a test of a webhook of an owner whom the scope manages. The caller sends it,
// and reports to [DB.FinishWebhookTest]. It returns [ErrTooManyTests] if six tests of
// the webhook began in the last minute.
func (d *DB) BeginWebhookTest(ctx context.Context, scope Scope, message WebhookMessage, at time.Time) (Webhook, WebhookDelivery, error) {
	var row webhookRow
	var delivery WebhookDelivery
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &row, `SELECT `+webhookColumns+` FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` FOR NO KEY UPDATE`,
			scope.All, scope.account(), message.WebhookID)
		if err != nil {
			return err
		}
		var recent int
		err = tx.GetContext(ctx, &recent,
			`SELECT count(*) FROM (SELECT created_at, type FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY id DESC LIMIT 1000) AS v
			WHERE v.type = $2 AND v.created_at > $3`, message.WebhookID, message.Type, stamp(at.Add(-time.Minute)))
		if err != nil {
			return err
		}
		if recent >= testsPerMinute {
			return ErrTooManyTests
		}
		return tx.GetContext(ctx, &delivery,
			`INSERT INTO webhook_deliveries AS v (webhook_id, message_id, type, payload, created_at, state)
			VALUES ($1, $2, $3, $4, $5, 'pending') RETURNING `+deliveryColumns,
			message.WebhookID, message.ID, message.Type, message.PayloadJSON, stamp(at))
	})
	return d.openWebhook(row), delivery, wrap(err, "test webhook %d", message.WebhookID)
}

// WebhookAttempt is what came of an attempt to send a message.
type WebhookAttempt struct {
	At       time.Time // When it ended.
	Duration time.Duration
	Status   *int   // Of the response; nil if none came.
	Error    string // Why it failed; empty means that it was delivered.
}

func (a WebhookAttempt) state() string {
	if a.Error == "" {
		return DeliveryDelivered
	}
	return DeliveryFailed
}

// FinishWebhookTest stores what came of a test, and returns it.
func (d *DB) FinishWebhookTest(ctx context.Context, id int64, attempt WebhookAttempt) (WebhookDelivery, error) {
	var delivery WebhookDelivery
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return tx.GetContext(ctx, &delivery,
			`UPDATE webhook_deliveries v SET state = $2, attempts = 1, attempted_at = $3, status = $4, error = $5, duration_ms = $6
			WHERE v.id = $1 RETURNING `+deliveryColumns,
			id, attempt.state(), stamp(attempt.At), attempt.Status, attempt.Error, attempt.Duration.Milliseconds())
	})
	return delivery, wrap(err, "finish test %d", id)
}

// DueDelivery is a message to send now, to a webhook which the replica has a lease of.
type DueDelivery struct {
	Lease    uuid.UUID
	Webhook  Webhook
	Delivery WebhookDelivery
}

// BusyWebhooks are the webhooks that a replica claims no messages of, because it sends enough that go the same way.
type BusyWebhooks struct {
	Targets []string
	// Users and Organisations are owners, and Site are the webhooks of the whole site.
	Users, Organisations []int64
	Site                 bool
}

// ClaimDeliveries returns messages that are due, at most limit, with a lease of their webhooks. A webhook has one
// lease at a time, which ends with [DB.FinishDelivery] or after a time; of webhooks with the same target or the same
// owner it returns one, and none of those that are busy. The webhook that waits for longest comes first. Any number of
// replicas call it.
func (d *DB) ClaimDeliveries(ctx context.Context, limit int, busy BusyWebhooks, lease time.Duration, at time.Time) ([]DueDelivery, error) {
	id := uuid.New()
	var rows []struct {
		Webhook  webhookRow      `db:"w"`
		Delivery WebhookDelivery `db:"v"`
	}
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		rows = nil
		var claimed []int64
		// The lock is taken after the choice: a webhook whose row is locked by then waits for the next call.
		err := tx.SelectContext(ctx, &claimed,
			`WITH due AS (
				SELECT DISTINCT ON (w.target) w.id, w.attempted_at, w.user_id, w.organisation_id FROM webhooks w
				WHERE w.enabled AND (w.leased_until IS NULL OR w.leased_until <= $1) AND (w.held_until IS NULL OR w.held_until <= $1)
					AND w.target <> ALL ($2) AND NOT CASE WHEN w.user_id IS NOT NULL THEN w.user_id = ANY ($6)
						WHEN w.organisation_id IS NOT NULL THEN w.organisation_id = ANY ($7) ELSE $8 END
					AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = w.user_id AND u.suspended)
					AND EXISTS (SELECT 1 FROM webhook_deliveries v WHERE v.webhook_id = w.id AND v.next_at <= $1)
				ORDER BY w.target, w.attempted_at NULLS FIRST, w.id),
			turns AS (
				SELECT DISTINCT ON (user_id, organisation_id) id, attempted_at FROM due
				ORDER BY user_id, organisation_id, attempted_at NULLS FIRST, id),
			locked AS (SELECT w.id FROM webhooks w WHERE w.id IN (SELECT id FROM turns ORDER BY attempted_at NULLS FIRST, id LIMIT $3)
				AND (w.leased_until IS NULL OR w.leased_until <= $1) FOR NO KEY UPDATE SKIP LOCKED)
			UPDATE webhooks w SET lease = $4, leased_until = $5 FROM locked WHERE w.id = locked.id RETURNING w.id`,
			stamp(at), pq.Array(append([]string{}, busy.Targets...)), limit, id, stamp(at.Add(lease)),
			pq.Array(append([]int64{}, busy.Users...)), pq.Array(append([]int64{}, busy.Organisations...)), busy.Site)
		if err != nil || len(claimed) == 0 {
			return err
		}
		return tx.SelectContext(ctx, &rows,
			`SELECT `+aliased(webhookColumns)+`, `+aliased(deliveryColumns)+`
			FROM webhooks w CROSS JOIN LATERAL (SELECT * FROM webhook_deliveries v WHERE v.webhook_id = w.id AND v.next_at <= $2
				ORDER BY v.next_at, v.id LIMIT 1) AS v
			WHERE w.id = ANY ($1)`, pq.Array(claimed), stamp(at))
	})
	due := make([]DueDelivery, 0, len(rows))
	for _, row := range rows {
		due = append(due, DueDelivery{Lease: id, Webhook: d.openWebhook(row.Webhook), Delivery: row.Delivery})
	}
	return due, wrap(err, "claim deliveries")
}

// FinishedDelivery is what became of a [DueDelivery].
type FinishedDelivery struct {
	Attempt WebhookAttempt
	// Again is when it is sent again; nil if it is not.
	Again *time.Time
	// Hold is until when nothing is sent to the webhook; nil if it is not held.
	Hold *time.Time
	// Disable is why the webhook is disabled; empty if it is not.
	Disable string
}

// FinishDelivery ends the lease of a message with what became of it. If the lease is not the current one any more,
// nothing changes, because another replica sends the message.
func (d *DB) FinishDelivery(ctx context.Context, due DueDelivery, finished FinishedDelivery) error {
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		a := finished.Attempt
		state := a.state()
		if finished.Again != nil {
			state = DeliveryPending
		}
		result, err := tx.ExecContext(ctx,
			`UPDATE webhooks SET lease = NULL, leased_until = NULL, attempted_at = $3, last_status = $4, last_error = $5, held_until = $6,
				failures = CASE WHEN $5 = '' THEN 0 ELSE failures + 1 END,
				failing_since = CASE WHEN $5 <> '' THEN coalesce(failing_since, $3) END
			WHERE id = $1 AND lease = $2`,
			due.Webhook.ID, due.Lease, stamp(a.At), a.Status, a.Error, finished.Hold)
		if err != nil {
			return err
		}
		if ended, err := result.RowsAffected(); err != nil || ended == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`UPDATE webhook_deliveries SET attempts = attempts + 1, attempted_at = $2, status = $3, error = $4, duration_ms = $5, state = $6, next_at = $7
			WHERE id = $1 AND next_at IS NOT NULL`,
			due.Delivery.ID, stamp(a.At), a.Status, a.Error, a.Duration.Milliseconds(), state, finished.Again)
		if err != nil || finished.Disable == "" {
			return err
		}
		return disableWebhook(ctx, tx, due.Webhook.ID, finished.Disable)
	})
	return wrap(err, "finish delivery %d", due.Delivery.ID)
}

// ReleaseDelivery ends the lease of a message that was not sent, as when the replica stops.
func (d *DB) ReleaseDelivery(ctx context.Context, due DueDelivery) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE webhooks SET lease = NULL, leased_until = NULL WHERE id = $1 AND lease = $2`, due.Webhook.ID, due.Lease)
	return wrap(err, "release delivery %d", due.Delivery.ID)
}

// PendingDeliveries returns how many messages of webhooks wait to be sent.
func (d *DB) PendingDeliveries(ctx context.Context) (count int, err error) {
	err = d.devices.GetContext(ctx, &count, `SELECT count(*) FROM webhook_deliveries WHERE next_at IS NOT NULL`)
	return count, wrap(err, "count pending deliveries")
}

// PruneDeliveries deletes deliveries that ended more than 30 days ago, and all but the newest 1000 of each webhook.
func (d *DB) PruneDeliveries(ctx context.Context, at time.Time) error {
	_, err := d.devices.ExecContext(ctx,
		`DELETE FROM webhook_deliveries v USING webhooks w
		WHERE v.webhook_id = w.id AND v.next_at IS NULL AND (v.created_at < $1 OR v.id <= (
			SELECT k.id FROM webhook_deliveries k WHERE k.webhook_id = w.id ORDER BY k.id DESC OFFSET $2 LIMIT 1))`,
		stamp(at.Add(-deliveryRetention)), maxKeptDeliveries)
	return wrap(err, "prune deliveries")
}

// aliased returns columns such as w.id, each named as that, for a field of a struct with the tag w.
func aliased(columns string) string {
	var named []string
	for column := range strings.SplitSeq(columns, ",") {
		column = strings.TrimSpace(column)
		named = append(named, column+` AS "`+column+`"`)
	}
	return strings.Join(named, ", ")
}
