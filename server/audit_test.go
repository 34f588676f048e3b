package server_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// TestServer_KeepsTheAuditTrailForItsTime starts a panel on a trail with an old entry and a new one.
func TestServer_KeepsTheAuditTrailForItsTime(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	for _, email := range []string{"old@example.com", "new@example.com"} {
		if _, err := d.CreateUser(t.Context(), email, "", "user"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
		`UPDATE audit_log SET at = now() - interval '25 hours' WHERE target_name = 'old@example.com'`)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Start(t, func(o *server.Options) {
		o.Database.URL = url
		o.TunnelServer.Disabled = true
		o.AuditRetention = 24 * time.Hour
	})
	want := []string{"signing_key.create by panel ", "user.create by panel " + servertest.AdminEmail, "user.create by unknown new@example.com"}
	await.Within(t, await.Timeout, "trail without the old entry", func(ctx context.Context) (bool, error) {
		entries, err := d.Audit(ctx, db.AuditFilter{}, db.Page[db.AuditPosition]{})
		var got []string
		for _, entry := range entries {
			got = append(got, entry.Action+" by "+entry.ActorKind+" "+entry.TargetName)
		}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the trail is %q", got)
		}
		return err == nil, err
	})
}
