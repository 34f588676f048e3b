package db_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestSweepWebhooks_WaitsForNobody: a sweep writes rows of many devices, allocations and webhooks. Had it to wait for
// one of them, it could do so for a transaction that waits for the sweep.
func TestSweepWebhooks_WaitsForNobody(t *testing.T) {
	for name, of := range map[string]struct {
		event, begin  string // begin runs in a transaction that has not ended.
		noted         bool   // The event is told of by the second sweep.
		first, second int    // Messages meanwhile, and when it was undone.
	}{
		"a device that is being deleted": {
			event: db.EventDeviceOffline, begin: `DELETE FROM devices WHERE id = (SELECT min(id::text)::uuid FROM devices WHERE kind = 'client')`, first: 1, second: 1,
		},
		"an enrollment that is being deleted": {
			event: db.EventEnrollmentWaiting, begin: `DELETE FROM devices WHERE approved_at IS NULL`, first: 0, second: 1,
		},
		"an allocation that is being deleted": {
			event: db.EventAllocationFailed, begin: `DELETE FROM allocations WHERE id = (SELECT min(id) FROM allocations)`, noted: true, first: 1, second: 1,
		},
		"a webhook that is being changed": {event: db.EventDeviceOffline, begin: `UPDATE webhooks SET failures = 1`, first: 0, second: 2},
		"a webhook that is being deleted": {event: db.EventAllocationFailed, begin: `DELETE FROM webhooks`, noted: true, first: 0, second: 2},
	} {
		t.Run(name, func(t *testing.T) {
			d := dbtest.New(t)
			sql := dbtest.SQL(t, d)
			at := time.Now()
			_, err := d.CreateWebhook(t.Context(), everything, db.Webhook{
				Name: "alerts", URL: "https://example.com/", Target: "https://example.com:443", Secret: "whsec_", Format: "standard",
				Events: []string{of.event}, Enabled: true, CreatedAt: at.Add(-time.Hour),
			})
			check(t, err)
			replica, server := uuid.New(), enroll(t, d, db.KindServer, nil)
			check(t, d.RenewLease(t.Context(), replica, time.Hour))
			for range 2 {
				allocate(t, d, enroll(t, d, db.KindClient, nil).ID, server.ID)
			}
			_, err = d.CreateDevice(t.Context(), db.NewDevice{
				Name: "new", Kind: db.KindServer, UserCode: "CDFG-2345", CodeHash: make([]byte, 32), CreatedAt: at, ExpiresAt: at.Add(time.Hour),
			})
			check(t, err)
			for _, statement := range []string{
				`INSERT INTO webhook_sweep (swept_at, resumed_at) VALUES (now() - interval '9 seconds', now() - interval '1 hour')`,
				`UPDATE devices SET first_connected_at = now(), last_seen_at = now() - interval '5 minutes', replica_id = NULL WHERE kind = 'client'`,
				`UPDATE devices SET replica_id = '` + replica.String() + `' WHERE kind = 'server'`,
				`UPDATE allocations SET server_state = 'failed'`,
			} {
				_, err := sql.ExecContext(t.Context(), statement)
				check(t, err)
			}
			sweep := func() int {
				t.Helper()
				at = at.Add(5 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				queued, err := d.SweepWebhooks(ctx, db.WebhookSweep{At: at, Every: time.Second, Message: func(event db.WebhookEvent) (db.WebhookMessage, error) {
					return db.WebhookMessage{ID: "msg_1", Type: event.Type, PayloadJSON: "{}"}, nil
				}})
				check(t, err)
				return queued
			}
			if of.noted {
				if queued := sweep(); queued != 0 {
					t.Fatalf("%d messages at once", queued)
				}
			}
			tx, err := sql.BeginTx(t.Context(), nil)
			check(t, err)
			defer func() { _ = tx.Rollback() }()
			_, err = tx.ExecContext(t.Context(), of.begin)
			check(t, err)
			if queued := sweep(); queued != of.first {
				t.Errorf("%d messages meanwhile, want %d", queued, of.first)
			}
			check(t, tx.Rollback())
			if queued := sweep(); queued != of.second {
				t.Errorf("%d messages after that was undone, want %d", queued, of.second)
			}
			if queued := sweep(); queued != 0 {
				t.Errorf("%d messages once more", queued)
			}
		})
	}
}
