package db

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/eclitunnel/eclitunnel/db/atrest"
)

// The names of a webhook's secrets for sealSecret.
func webhookURLName(id int64) string       { return fmt.Sprintf("webhook URL %d", id) }
func webhookSecretName(id int64) string    { return fmt.Sprintf("webhook secret %d", id) }
func webhookOldSecretName(id int64) string { return fmt.Sprintf("webhook old secret %d", id) }

// openWebhook returns a row with its secrets as they are.
func (d *DB) openWebhook(row webhookRow) Webhook {
	webhook := row.Webhook
	url, _ := d.openText(webhookURLName(row.ID), row.StoredURL)
	secret, _ := d.openText(webhookSecretName(row.ID), row.StoredSecret)
	old, _ := d.openText(webhookOldSecretName(row.ID), row.StoredOldSecret)
	webhook.URL, webhook.Secret, webhook.OldSecret = string(url), string(secret), string(old)
	return webhook
}

// openText is openSecret for printable text, which no sealed secret begins as.
func (d *DB) openText(name string, stored []byte) (text []byte, current bool) {
	return d.openSecret(name, stored, atrest.Sealed(stored))
}

// EncryptWebhooks stores the secrets of webhooks as the database's secret keys say. Webhooks whose URL or secret is
// encrypted with another key are disabled, and lost is their number. It must follow an [DB.EnsureSigningKey], which
// returns an error if the database was opened with wrong secret keys.
func (d *DB) EncryptWebhooks(ctx context.Context) (lost int, err error) {
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		lost = 0
		var rows []webhookRow
		if err := tx.SelectContext(ctx, &rows, `SELECT `+webhookColumns+` FROM webhooks w ORDER BY w.id FOR UPDATE`); err != nil {
			return err
		}
		for _, row := range rows {
			url, urlCurrent := d.openText(webhookURLName(row.ID), row.StoredURL)
			secret, secretCurrent := d.openText(webhookSecretName(row.ID), row.StoredSecret)
			old, oldCurrent := d.openText(webhookOldSecretName(row.ID), row.StoredOldSecret)
			switch {
			case url == nil || secret == nil:
				lost++
				if err := disableWebhook(ctx, tx, row.ID, "its URL or secret is encrypted with a key that the panel does not have"); err != nil {
					return err
				}
			case urlCurrent && secretCurrent && (oldCurrent || old == nil):
			default:
				if old != nil {
					old = d.sealSecret(webhookOldSecretName(row.ID), old)
				}
				_, err := tx.ExecContext(ctx, `UPDATE webhooks SET url = $2, secret = $3, old_secret = $4 WHERE id = $1`, row.ID,
					d.sealSecret(webhookURLName(row.ID), url), d.sealSecret(webhookSecretName(row.ID), secret), old)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	return lost, wrap(err, "encrypt webhooks")
}

// disableWebhook disables a webhook for a reason that people see. One that is disabled keeps its reason.
func disableWebhook(ctx context.Context, tx *sqlx.Tx, id int64, reason string) error {
	result, err := tx.ExecContext(ctx, `UPDATE webhooks SET enabled = false, disabled_reason = $2 WHERE id = $1 AND enabled`, id, reason)
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows == 0 {
		return err
	}
	return forgetWebhook(ctx, tx, id, "the webhook was disabled")
}
