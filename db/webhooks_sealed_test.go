package db_test

import (
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestWebhooks_AreEncryptedWithTheSecretKeys(t *testing.T) {
	url := dbtest.URL(t)
	plain := dbtest.Open(t, url)
	connections := dbtest.SQL(t, plain)
	secrets := []string{"https://example.com/a-secret-path", "whsec_first", "whsec_second"}
	stored := func(when string, want bool) {
		t.Helper()
		var text string
		row := connections.QueryRowContext(t.Context(), `SELECT encode(url, 'escape') || ' ' || encode(secret, 'escape') || ' ' || encode(old_secret, 'escape') FROM webhooks`)
		check(t, row.Scan(&text))
		for _, secret := range secrets {
			if strings.Contains(text, secret) != want {
				t.Errorf("%s: the database has %q, want %q in it: %v", when, text, secret, want)
			}
		}
	}
	all := db.Scope{All: true}
	made, err := plain.CreateWebhook(t.Context(), all, db.Webhook{
		Name: "alerts", URL: secrets[0], Target: "https://example.com", Secret: secrets[1], Format: "standard", Events: []string{db.EventDeviceOffline},
		Enabled: true, CreatedAt: time.Now(),
	})
	check(t, err)
	_, err = plain.RotateWebhookSecret(t.Context(), all, made.ID, secrets[2], time.Now())
	check(t, err)
	stored("without keys", true)

	sealed := openSealed(t, url, secretKeys(t, 1))
	lost, err := sealed.EncryptWebhooks(t.Context())
	check(t, err)
	stored("with keys", false)
	read := func(d *db.DB) db.Webhook {
		t.Helper()
		webhook, err := d.Webhook(t.Context(), all, made.ID)
		check(t, err)
		return webhook
	}
	if now := read(sealed); lost != 0 || now.URL != secrets[0] || now.Secret != secrets[2] || now.OldSecret != secrets[1] || !now.Enabled {
		t.Errorf("lost %d, read %+v", lost, now)
	}
	other := openSealed(t, url, secretKeys(t, 2))
	if lost, err = other.EncryptWebhooks(t.Context()); err != nil || lost != 1 {
		t.Errorf("with another key: %d lost, %v", lost, err)
	}
	if now := read(other); now.URL != "" || now.Secret != "" || now.Enabled || !strings.Contains(now.DisabledReason, "encrypted") {
		t.Errorf("with another key: %+v", now)
	}
}
