package handler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func webhookPath(id int64) string { return fmt.Sprintf("/api/webhooks/%d", id) }

// newWebhook returns the webhook of a target.
func (to *target) newWebhook(t *testing.T, w *world) db.Webhook {
	t.Helper()
	if to.webhook != nil {
		if _, err := w.db.Webhook(t.Context(), db.Scope{All: true}, to.webhook.ID); err == nil {
			return *to.webhook
		}
	}
	w.exec(t, `DELETE FROM webhooks`) // An owner has few.
	webhook, err := w.db.CreateWebhook(t.Context(), db.Scope{All: true}, db.Webhook{
		APIKeyOwner: db.APIKeyOwner{UserID: to.owner, OrganisationID: to.organisation}, Name: "target", Format: "standard",
		URL: "https://example.com/a-secret-path", Target: "https://example.com", Events: []string{"device.offline"}, Enabled: true, CreatedAt: w.Now(),
		Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
	})
	if err != nil {
		t.Fatal(err)
	}
	to.webhook = &webhook
	return webhook
}

// newDelivery returns the id of a delivery of the target's webhook.
func (to *target) newDelivery(t *testing.T, w *world) int64 {
	t.Helper()
	webhook := to.newWebhook(t, w)
	w.exec(t, `INSERT INTO webhook_deliveries (webhook_id, message_id, type, payload, created_at, state)
		VALUES ($1, 'msg_1', 'webhook.test', '{"type":"webhook.test","timestamp":"2026-01-02T03:00:00Z","data":{}}', now(), 'failed')`, webhook.ID)
	deliveries, err := w.db.WebhookDeliveries(t.Context(), db.Scope{All: true}, webhook.ID, db.Page[int64]{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return deliveries[0].ID
}

const newWebhook = `{"name":"alerts","url":"https://example.com/a-secret-path","events":["device.offline"]`

// webhookAnswers adds the answers of errorAnswers that are about webhooks of a user.
func webhookAnswers(t *testing.T, c caller, answers map[string]answer) {
	t.Helper()
	created := decode[types.WebhookCreated](t, c.send(t, "POST", "/api/webhooks", newWebhook+`,"enabled":false}`), 201)
	tested := decode[types.WebhookDelivery](t, c.send(t, "POST", webhookPath(created.ID)+"/test", nil), 200)
	answers["SiteForbidden"] = c.send(t, "GET", "/api/webhooks?site=true", nil)
	answers["WebhookNotFound"] = c.send(t, "GET", webhookPath(999), nil)
	answers["DeliveryNotFound"] = c.send(t, "POST", webhookPath(created.ID)+"/deliveries/999/redeliver", nil)
	answers["WebhookDisabled"] = c.send(t, "POST", fmt.Sprintf("%s/deliveries/%d/redeliver", webhookPath(created.ID), tested.ID), nil)
	for range 19 {
		decode[types.WebhookCreated](t, c.send(t, "POST", "/api/webhooks", newWebhook+`}`), 201)
	}
	answers["TooManyWebhooks"] = c.send(t, "POST", "/api/webhooks", newWebhook+`}`)
}

func TestWebhooks_ShowTheirSecretOnce(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	created := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks", newWebhook+`}`), 201)
	if created.UserID.MustGet() != ada.user.ID || !created.OrganisationID.IsNull() || created.OfflineDelaySeconds != 60 ||
		created.Format != types.WebhookStandard || !created.Enabled || !created.LastDelivery.IsNull() {
		t.Errorf("created %+v", created)
	}
	path := webhookPath(created.ID)
	rotated := decode[types.WebhookSecret](t, ada.send(t, "POST", path+"/rotate-secret", nil), 200)
	if rotated.Secret == created.Secret || !rotated.OldSecretExpiresAt.Equal(p.Now().Add(24*time.Hour)) {
		t.Errorf("rotated to %+v", rotated)
	}
	changed := ada.send(t, "PATCH", path, `{"name":" pager ","events":["quota.reached"],"offlineDelaySeconds":0}`)
	if got := decode[types.Webhook](t, changed, 200); got.Name != "pager" || got.OfflineDelaySeconds != 0 || got.Events[0] != types.WebhookQuotaReached {
		t.Errorf("changed to %+v", got)
	}
	for _, a := range []answer{changed, ada.send(t, "GET", path, nil), ada.send(t, "GET", "/api/webhooks", nil)} {
		if strings.Contains(string(a.body), "whsec_") || !strings.Contains(string(a.body), "a-secret-path") {
			t.Errorf("%s %s shows %s", a.method, a.path, a.body)
		}
	}
	decode[types.Success](t, ada.send(t, "DELETE", path, nil), 200)
	wantError(t, ada.send(t, "GET", path, nil), 404, types.CodeNotFound)
}

// TestWebhooks_RefuseWhatTheyMustNotSendTo: what a name leads to is checked when it is connected to.
func TestWebhooks_RefuseWhatTheyMustNotSendTo(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	for _, url := range []string{
		"http://example.com/", "https://127.0.0.1/", "https://10.0.0.1/", "https://localhost/", "https://a.localhost/",
		"https://panel.example.com/api", "https://PANEL.example.com./", "https://[::1]/", "https://[::ffff:169.254.169.254]/", "https://127.1/",
		"https:///x", "https://example.com/#x", "https://[fe80::1%25eth0]/",
	} {
		wantField(t, ada.send(t, "POST", "/api/webhooks", map[string]any{"name": "a", "url": url, "events": []string{"device.offline"}}), "url")
	}
	for url, format := range map[string]string{"https://ntfy.sh/": "ntfy", "https://ntfy.sh/a/b": "ntfy"} {
		wantField(t, ada.send(t, "POST", "/api/webhooks", map[string]any{"name": "a", "url": url, "format": format, "events": []string{"device.offline"}}), "url")
	}
	created := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks", newWebhook+`}`), 201)
	wantField(t, ada.send(t, "PATCH", webhookPath(created.ID), `{"url":"https://192.168.0.1/"}`), "url")
	wantField(t, ada.send(t, "PATCH", webhookPath(created.ID), `{"url":"https://ntfy.sh/a/b","format":"ntfy"}`), "url")
	wantField(t, ada.send(t, "POST", "/api/webhooks", newWebhook+`,"site":true,"organisationId":1}`), "site")
	wantField(t, ada.send(t, "GET", "/api/webhooks?site=true&userId=1", nil), "site")
	wantField(t, ada.send(t, "GET", "/api/webhooks?organisationId=1&userId=1", nil), "organisationId")
}

func TestWebhooks_AreTestedSixTimesAMinute(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	created := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks", newWebhook+`}`), 201)
	path := webhookPath(created.ID)
	for range 6 {
		tested := decode[types.WebhookDelivery](t, ada.send(t, "POST", path+"/test", nil), 200)
		if tested.State != types.DeliveryFailed || tested.Error.MustGet() != "the host does not exist" || tested.Attempts != 1 {
			t.Errorf("tested %+v", tested)
		}
	}
	if a := ada.send(t, "POST", path+"/test", nil); a.header.Get("Retry-After") != "60" {
		t.Errorf("retry after %q", a.header.Get("Retry-After"))
	} else {
		wantError(t, a, 429, types.CodeRateLimited)
	}
	p.advance(time.Minute)
	decode[types.WebhookDelivery](t, ada.send(t, "POST", path+"/test", nil), 200)

	first := ada.send(t, "GET", path+"/deliveries?limit=5", nil)
	if list := decode[[]types.WebhookDelivery](t, first, 200); len(list) != 5 || list[0].ID < list[4].ID {
		t.Errorf("deliveries %+v", list)
	}
	next := first.header.Get("Link")
	next = next[1:strings.Index(next, ">")]
	if list := decode[[]types.WebhookDelivery](t, ada.send(t, "GET", next, nil), 200); len(list) != 2 {
		t.Errorf("second page %+v", list)
	}
	if got := decode[types.Webhook](t, ada.send(t, "GET", path, nil), 200); !got.FailingSince.IsNull() || !got.LastDelivery.IsNull() {
		t.Errorf("tests count as deliveries: %+v", got)
	}
}

// TestWebhooks_TellOfAQuota queues the message of a refused request, at most once an hour.
func TestWebhooks_SendAgainThirtyTimesAMinute(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	created := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks", newWebhook+`}`), 201)
	again := func() answer {
		return ada.send(t, "POST", webhookPath(created.ID)+"/deliveries/1/redeliver", nil)
	}
	for range 30 {
		wantError(t, again(), 404, types.CodeNotFound)
	}
	if a := again(); a.header.Get("Retry-After") != "60" {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	wantError(t, again(), 429, types.CodeRateLimited)
	p.advance(time.Minute)
	wantError(t, again(), 404, types.CodeNotFound)
}

func TestWebhooks_TellOfAQuota(t *testing.T) {
	p := newPanel(t)
	admin, ada, eve := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "eve@example.com", "user")
	const quota = `{"name":"quota","url":"https://example.com/","events":["quota.reached"]`
	own := decode[types.WebhookCreated](t, ada.send(t, "POST", "/api/webhooks", quota+`}`), 201)
	site := decode[types.WebhookCreated](t, admin.send(t, "POST", "/api/webhooks", quota+`,"site":true}`), 201)
	other := decode[types.WebhookCreated](t, eve.send(t, "POST", "/api/webhooks", quota+`}`), 201)
	decode[types.Quota](t, admin.send(t, "PATCH", userPath(ada.user.ID)+"/quota", `{"devices":1}`), 200)
	p.device(t, ada, admin, types.DeviceKindClient)
	refuse := func() {
		wantError(t, admin.send(t, "POST", "/api/tunnel/devices", map[string]any{"name": "second", "ownerId": ada.user.ID}), 409, types.CodeQuotaExceeded)
	}
	refuse()
	refuse()
	told := func(c caller, id int64) []types.WebhookDelivery {
		return decode[[]types.WebhookDelivery](t, c.send(t, "GET", webhookPath(id)+"/deliveries", nil), 200)
	}
	for _, list := range [][]types.WebhookDelivery{told(ada, own.ID), told(admin, site.ID)} {
		if len(list) != 1 || list[0].Type != "quota.reached" || list[0].Payload.Data.Quota == nil {
			t.Fatalf("told %+v", list)
		}
		if q := *list[0].Payload.Data.Quota; q.Resource != types.QuotaDevices || q.Limit != 1 || q.Used != 1 || q.UserID.MustGet() != ada.user.ID {
			t.Errorf("told %+v", q)
		}
	}
	if list := told(eve, other.ID); len(list) != 0 {
		t.Errorf("a stranger was told %+v", list)
	}
	p.advance(time.Hour)
	refuse()
	await.Until(t, "the webhook is told again after an hour", func() bool { return len(told(ada, own.ID)) == 2 })
}
