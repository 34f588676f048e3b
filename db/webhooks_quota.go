package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// quotaReminder is the time after which a webhook is told again that an owner's quota of something was reached.
const quotaReminder = time.Hour

// QueueQuotaReached tells the webhooks that want to know that a quota was reached: those of the owner and those of the
// whole site, each at most once an hour about an owner and a resource. message returns the message, and is not called if
// nobody is told. It returns the number of messages.
func (d *DB) QueueQuotaReached(ctx context.Context, reached QuotaError, at time.Time, message func() (WebhookMessage, error)) (queued int, err error) {
	owner := fmt.Sprintf("user:%d", reached.UserID)
	if reached.OrganisationID != 0 {
		owner = fmt.Sprintf("organisation:%d", reached.OrganisationID)
	}
	err = d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var webhooks []int64
		err := tx.SelectContext(ctx, &webhooks,
			`WITH told AS (
				SELECT w.id FROM webhooks w
				WHERE w.enabled AND $1 = ANY (w.events) AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = w.user_id AND u.suspended)
					AND (w.user_id = nullif($2::bigint, 0) OR w.organisation_id = nullif($3::bigint, 0) OR num_nonnulls(w.user_id, w.organisation_id) = 0)
					AND NOT EXISTS (SELECT 1 FROM webhook_quotas r WHERE r.webhook_id = w.id AND r.owner = $4 AND r.resource = $5 AND r.sent_at > $7)
				ORDER BY w.id FOR NO KEY UPDATE OF w) -- Before their deliveries, as everybody does.
			INSERT INTO webhook_quotas AS q (webhook_id, owner, resource, sent_at)
			SELECT id, $4, $5, $6 FROM told ORDER BY id
			ON CONFLICT (webhook_id, owner, resource) DO UPDATE SET sent_at = excluded.sent_at WHERE q.sent_at <= $7
			RETURNING webhook_id`,
			EventQuotaReached, reached.UserID, reached.OrganisationID, owner, reached.Resource, stamp(at), stamp(at.Add(-quotaReminder)))
		queued = len(webhooks)
		if err != nil || queued == 0 {
			return err
		}
		messages := make([]WebhookMessage, 0, queued)
		for _, id := range webhooks {
			m, err := message()
			if err != nil {
				return err
			}
			m.WebhookID = id
			messages = append(messages, m)
		}
		return queueMessages(ctx, tx, messages, at)
	})
	return queued, wrap(err, "queue quota reached")
}
