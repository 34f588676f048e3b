package server_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// TestWebhooks_ArriveOnceFromAnyPanel has two panels on one database, of which one stops. What is sent is signed, and
// its URL is in no log.
func TestWebhooks_ArriveOnceFromAnyPanel(t *testing.T) {
	type message struct {
		header http.Header
		body   []byte
	}
	got := make(chan message, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- message{r.Header, body}
		w.WriteHeader(http.StatusInternalServerError) // So that it is not delivered.
	}))
	t.Cleanup(receiver.Close)
	var log testlog.Buffer
	database := server.Database{URL: dbtest.URL(t)}
	configure := func(o *server.Options) {
		o.Database, o.WebhookPrivateTargets, o.TunnelServer.Disabled = database, true, true
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.TrustedProxies = []netip.Prefix{}
	}
	first := servertest.Start(t, configure)
	second := servertest.Start(t, configure)
	admin := first.Admin()
	created, err := admin.CreateWebhookWithResponse(t.Context(), types.WebhookCreate{
		Name: "alerts", URL: receiver.URL + "/a-secret-path", Events: []types.WebhookEventType{types.WebhookQuotaReached}, Site: new(true),
	})
	if err != nil || created.JSON201 == nil {
		t.Fatalf("%v: %s", err, created.Body)
	}
	tested, err := admin.TestWebhookWithResponse(t.Context(), created.JSON201.ID)
	if err != nil || tested.JSON200 == nil || tested.JSON200.Status.MustGet() != 500 {
		t.Fatalf("%v: %s", err, tested.Body)
	}
	checker, err := standardwebhooks.NewWebhook(created.JSON201.Secret)
	if err != nil {
		t.Fatal(err)
	}
	m := await.Receive(t, got, "test")
	if err := checker.Verify(m.body, m.header); err != nil {
		t.Error(err)
	}
	first.Stop()
	again, err := second.Admin().RedeliverWebhookWithResponse(t.Context(), created.JSON201.ID, tested.JSON200.ID)
	if err != nil || again.JSON200 == nil || again.JSON200.State != types.DeliveryPending {
		t.Fatalf("%v: %s", err, again.Body)
	}
	m = await.Receive(t, got, "message again")
	if err := checker.Verify(m.body, m.header); err != nil || m.header.Get("webhook-id") != tested.JSON200.MessageID {
		t.Errorf("%v, with the id %s", err, m.header.Get("webhook-id"))
	}
	second.Stop()
	for _, secret := range []string{"a-secret-path", created.JSON201.Secret} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}
