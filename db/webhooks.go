package db

import (
	"context"
	"database/sql"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// maxWebhooks is the maximum number of webhooks of a user, of an organisation, and of the whole site.
const maxWebhooks = 20

// OldSecretLifetime is how long the secret before the current one of a webhook signs beside it.
const OldSecretLifetime = 24 * time.Hour

// Webhook is a URL that is told of events about what its owner has.
type Webhook struct {
	ID int64 `db:"id"`
	// APIKeyOwner is whose it is; with neither user nor organisation it is of the whole site.
	APIKeyOwner
	Name string `db:"name"`
	// URL is where messages are sent. It may contain a password. Empty means that it is encrypted with a key that the
	// database was not opened with, and so does a nil Secret. Target is its scheme, host
	// and port, such as https://example.com:443.
	URL    string `db:"-"`
	Target string `db:"target"`
	// Secret signs messages, in the form of the Standard Webhooks specification: whsec_ and base64. OldSecret, if it
	// is not empty, signs beside it until OldSecretUntil.
	Secret         string         `db:"-"`
	OldSecret      string         `db:"-"`
	OldSecretUntil *time.Time     `db:"old_secret_until"`
	Format         string         `db:"format"`
	Events         pq.StringArray `db:"events"` // Types of events.
	// OfflineDelay is for how many seconds a device is offline, or an allocation has failed, until that is an event.
	OfflineDelay   int       `db:"offline_delay"`
	Enabled        bool      `db:"enabled"`
	DisabledReason string    `db:"disabled_reason"` // Why the panel disabled it; empty if it did not.
	CreatedAt      time.Time `db:"created_at"`
	// The last attempt to send something: when, the status of the response, and why it failed. All are zero before
	// the first one; LastStatus is nil if there was no response.
	AttemptedAt *time.Time `db:"attempted_at"`
	LastStatus  *int       `db:"last_status"`
	LastError   string     `db:"last_error"`
	// Failures is the number of attempts since the last success, of which FailingSince was the first.
	Failures     int        `db:"failures"`
	FailingSince *time.Time `db:"failing_since"`
}

// webhookRow is a Webhook as the database stores it.
type webhookRow struct {
	Webhook
	StoredURL       []byte `db:"url"`
	StoredSecret    []byte `db:"secret"`
	StoredOldSecret []byte `db:"old_secret"`
}

const webhookColumns = `w.id, w.user_id, w.organisation_id, w.name, w.url, w.target, w.secret, w.old_secret, w.old_secret_until,
	w.format, w.events, w.offline_delay, w.enabled, w.disabled_reason, w.created_at, w.attempted_at, w.last_status, w.last_error,
	w.failures, w.failing_since`

// webhookManaged is the condition that webhook w is in the scope of [DB.Webhook], of which $1 is All and $2 the account.
const webhookManaged = `($1::boolean OR w.user_id = $2::bigint OR EXISTS (SELECT 1 FROM organisation_members m
	WHERE m.organisation_id = w.organisation_id AND m.user_id = $2::bigint AND m.role IN ('owner', 'admin')))`

// CreateWebhook stores a webhook and returns it with its id. Its URL, Target, Secret, Name, Format, Events,
// OfflineDelay, Enabled, CreatedAt and owner are used. The owner must be in scope: the user, an organisation in which
// the user is an owner or admin, and for the whole site a scope of everything; otherwise it returns [ErrNotFound], or
// [ErrForbidden] for an organisation of which the user is a member. It returns [ErrTooManyWebhooks] if the owner has 20.
func (d *DB) CreateWebhook(ctx context.Context, scope Scope, webhook Webhook) (Webhook, error) {
	var row webhookRow
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockWebhookOwner(ctx, tx, scope, webhook.APIKeyOwner); err != nil {
			return err
		}
		var count int
		if err := tx.GetContext(ctx, &count, `SELECT count(*) FROM webhooks w WHERE `+webhooksOf, webhook.UserID, webhook.OrganisationID); err != nil {
			return err
		}
		if count >= maxWebhooks {
			return ErrTooManyWebhooks
		}
		var id int64 // The name with which the secrets are encrypted has it.
		if err := tx.GetContext(ctx, &id, `SELECT nextval(pg_get_serial_sequence('webhooks', 'id'))`); err != nil {
			return err
		}
		return tx.GetContext(ctx, &row,
			`INSERT INTO webhooks AS w (id, user_id, organisation_id, name, url, target, secret, format, events, offline_delay, enabled,
				created_at, watched_from)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) RETURNING `+webhookColumns,
			id, webhook.UserID, webhook.OrganisationID, webhook.Name, d.sealSecret(webhookURLName(id), []byte(webhook.URL)), webhook.Target,
			d.sealSecret(webhookSecretName(id), []byte(webhook.Secret)), webhook.Format, webhook.Events, webhook.OfflineDelay, webhook.Enabled,
			stamp(webhook.CreatedAt))
	})
	return d.openWebhook(row), wrap(err, "create webhook")
}

// webhooksOf is the condition that webhook w has the owner $1, a user, or $2, an organisation, or neither.
const webhooksOf = `(w.user_id = $1 OR w.organisation_id = $2
	OR $1::bigint IS NULL AND $2::bigint IS NULL AND w.user_id IS NULL AND w.organisation_id IS NULL)`

// lockWebhookOwner has other creators of webhooks wait, and is otherwise checkWebhookOwner.
func lockWebhookOwner(ctx context.Context, tx *sqlx.Tx, scope Scope, owner APIKeyOwner) error {
	if owner.UserID != nil || owner.OrganisationID != nil {
		return lockKeyOwner(ctx, tx, scope, owner)
	}
	if !scope.All {
		return sql.ErrNoRows
	}
	var locked bool
	return tx.GetContext(ctx, &locked, `SELECT true FROM settings FOR NO KEY UPDATE`)
}

// checkWebhookOwner returns sql.ErrNoRows if the owner is not in scope, and ErrForbidden if it is an organisation that
// the scope does not manage.
func checkWebhookOwner(ctx context.Context, tx *sqlx.Tx, scope Scope, owner APIKeyOwner) error {
	if owner.UserID != nil || owner.OrganisationID != nil {
		return checkKeyOwner(ctx, tx, scope, owner)
	}
	if !scope.All {
		return sql.ErrNoRows
	}
	return nil
}

// Webhooks lists the webhooks of an owner in the scope of [DB.CreateWebhook], newest first, at most 20. Neither user
// nor organisation means those of the whole site. It returns [ErrNotFound] if the owner is not in scope.
func (d *DB) Webhooks(ctx context.Context, scope Scope, owner APIKeyOwner) ([]Webhook, error) {
	var rows []webhookRow
	err := d.requests.snapshot(ctx, func(tx *sqlx.Tx) error {
		if err := checkWebhookOwner(ctx, tx, scope, owner); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &rows, `SELECT `+webhookColumns+` FROM webhooks w WHERE `+webhooksOf+` ORDER BY w.id DESC`,
			owner.UserID, owner.OrganisationID)
	})
	webhooks := make([]Webhook, 0, len(rows))
	for _, row := range rows {
		webhooks = append(webhooks, d.openWebhook(row))
	}
	return webhooks, wrap(err, "list webhooks")
}

// Webhook returns a webhook of an owner whom the scope manages.
func (d *DB) Webhook(ctx context.Context, scope Scope, id int64) (Webhook, error) {
	var row webhookRow
	err := d.requests.GetContext(ctx, &row,
		`SELECT `+webhookColumns+` FROM webhooks w WHERE w.id = $3 AND `+webhookManaged, scope.All, scope.account(), id)
	return d.openWebhook(row), wrap(err, "webhook %d", id)
}

// WebhookPatch changes the fields that are not nil.
type WebhookPatch struct {
	Name, Format *string
	// URL and Target are given together.
	URL, Target  *string
	Events       []string
	OfflineDelay *int
	// Enabled false drops what was not sent yet. With true, a webhook that was disabled knows of what is offline now,
	// which is no event.
	Enabled *bool
}

// UpdateWebhook changes a webhook of an owner whom the scope manages, at a time.
func (d *DB) UpdateWebhook(ctx context.Context, scope Scope, id int64, patch WebhookPatch, at time.Time) (Webhook, error) {
	var row webhookRow
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var before struct {
			Enabled bool           `db:"enabled"`
			Events  pq.StringArray `db:"events"`
		}
		if err := d.checkWebhook(ctx, tx, scope, id); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &before, `SELECT w.enabled, w.events FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` FOR UPDATE`,
			scope.All, scope.account(), id)
		if err != nil {
			return err
		}
		var url []byte
		if patch.URL != nil {
			url = d.sealSecret(webhookURLName(id), []byte(*patch.URL))
		}
		enabled := patch.Enabled != nil && *patch.Enabled && !before.Enabled
		err = tx.GetContext(ctx, &row,
			`UPDATE webhooks AS w SET name = coalesce($2, w.name), format = coalesce($3, w.format), url = coalesce($4, w.url),
				target = coalesce($5, w.target), events = coalesce($6, w.events), offline_delay = coalesce($7, w.offline_delay),
				enabled = coalesce($8, w.enabled), disabled_reason = CASE WHEN $8 THEN '' ELSE w.disabled_reason END,
				failures = CASE WHEN $9 THEN 0 ELSE w.failures END, failing_since = CASE WHEN $9 THEN NULL ELSE w.failing_since END,
				held_until = CASE WHEN $9 OR $4::bytea IS NOT NULL THEN NULL ELSE w.held_until END,
				watched_from = CASE WHEN $9 OR $6 <> w.events THEN $10 ELSE w.watched_from END
			WHERE w.id = $1 RETURNING `+webhookColumns,
			id, patch.Name, patch.Format, url, patch.Target, pq.StringArray(patch.Events), patch.OfflineDelay, patch.Enabled, enabled, stamp(at))
		if err != nil || patch.Enabled == nil || *patch.Enabled == before.Enabled {
			return err
		}
		return forgetWebhook(ctx, tx, id, "the webhook was disabled")
	})
	return d.openWebhook(row), wrap(err, "update webhook %d", id)
}

// forgetWebhook drops what a webhook has not been sent, for a reason, and what it knows of.
func forgetWebhook(ctx context.Context, tx *sqlx.Tx, id int64, reason string) error {
	_, err := tx.ExecContext(ctx,
		`UPDATE webhook_deliveries SET state = 'dropped', next_at = NULL, error = $2 WHERE webhook_id = $1 AND next_at IS NOT NULL`, id, reason)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM webhook_watch WHERE webhook_id = $1`, id)
	return err
}

// checkWebhook checks the condition of ctx on a webhook that the scope manages, as checkCondition does.
func (d *DB) checkWebhook(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64) error {
	holds, ok := ctx.Value(conditionKey[Webhook]{}).(func(Webhook) bool)
	if !ok {
		return nil
	}
	var row webhookRow
	err := tx.GetContext(ctx, &row, `SELECT `+webhookColumns+` FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` FOR UPDATE`,
		scope.All, scope.account(), id)
	if err == nil && !holds(d.openWebhook(row)) {
		return ErrPrecondition
	}
	return err
}

// DeleteWebhook deletes a webhook of an owner whom the scope manages, with its deliveries.
func (d *DB) DeleteWebhook(ctx context.Context, scope Scope, id int64) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := d.checkWebhook(ctx, tx, scope, id); err != nil {
			return err
		}
		var deleted int64
		return tx.GetContext(ctx, &deleted, `DELETE FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` RETURNING w.id`,
			scope.All, scope.account(), id)
	})
	return wrap(err, "delete webhook %d", id)
}

// RotateWebhookSecret gives a webhook of an owner whom the scope manages another secret, at a time. The one before
// signs beside it for [OldSecretLifetime].
func (d *DB) RotateWebhookSecret(ctx context.Context, scope Scope, id int64, secret string, at time.Time) (Webhook, error) {
	var row webhookRow
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &row, `SELECT `+webhookColumns+` FROM webhooks w WHERE w.id = $3 AND `+webhookManaged+` FOR UPDATE`,
			scope.All, scope.account(), id)
		if err != nil {
			return err
		}
		var old []byte
		if before := d.openWebhook(row).Secret; before != "" {
			old = d.sealSecret(webhookOldSecretName(id), []byte(before))
		}
		return tx.GetContext(ctx, &row,
			`UPDATE webhooks AS w SET secret = $2, old_secret = $3, old_secret_until = $4 WHERE w.id = $1 RETURNING `+webhookColumns,
			id, d.sealSecret(webhookSecretName(id), []byte(secret)), old, stamp(at.Add(OldSecretLifetime)))
	})
	return d.openWebhook(row), wrap(err, "rotate secret of webhook %d", id)
}
