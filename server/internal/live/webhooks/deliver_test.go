package webhooks_test

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/atrest"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
)

// reach tells a fleet's webhooks that a user's quota was reached, as often as it is called.
func (s *service) reach(user int64) {
	s.f.Helper()
	s.f.exec(`DELETE FROM webhook_quotas`)
	s.f.check(s.QuotaReached(s.f.Context(), db.QuotaError{Resource: "devices", Limit: 1, Used: 1, UserID: user}))
}

const quotaReached = "quota.reached"

func TestService_SendsAgainUntilTheReceiverAccepts(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	s := f.start()
	r.answer(500)
	s.reach(ada)
	first := await.Receive(t, r.got, "message")
	pauses := []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
	for i, pause := range pauses {
		waits := f.settled(hook, db.DeliveryPending, i+1)
		if got := waits.NextAt.Sub(f.Now()); got.Round(time.Second) != pause || *waits.Status != 500 || waits.Error != "the receiver answered 500" {
			t.Fatalf("attempt %d left %+v, next in %v", i+1, waits, got)
		}
		f.advance(pause + time.Second)
		if i == len(pauses)-1 {
			r.answer(200)
		}
		s.tick(pollEvery)
		again := await.Receive(t, r.got, "message again")
		if again.header.Get("webhook-id") != first.header.Get("webhook-id") || string(again.body) != string(first.body) {
			t.Errorf("sent %s as %s", again.body, again.header.Get("webhook-id"))
		}
		again.verify(t, hook.Secret)
	}
	last := f.settled(hook, db.DeliveryDelivered, 10)
	if now := f.read(hook); now.FailingSince != nil || now.Failures != 0 || !now.Enabled || last.NextAt != nil || strings.Contains(last.Error, "nobody") {
		t.Errorf("in the end %+v, %+v", now, last)
	}
	if stats := s.Stats(); stats.Delivered != 1 || stats.Failed != 9 || stats.Ended != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestService_DisablesAWebhookThatFailsForDays(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	s := f.start()
	r.answer(302, "Location", "/elsewhere")
	s.reach(ada)
	await.Receive(t, r.got, "message")
	if left := f.settled(hook, db.DeliveryPending, 1); left.Error != "the receiver answered 302; redirects are not followed" {
		t.Errorf("left %+v", left)
	}
	f.advance(5*24*time.Hour - time.Minute)
	s.tick(pollEvery)
	await.Receive(t, r.got, "message after five days but a minute")
	f.settled(hook, db.DeliveryPending, 2)
	if !f.read(hook).Enabled {
		t.Fatal("disabled too soon")
	}
	f.advance(10 * time.Minute)
	s.tick(pollEvery)
	await.Receive(t, r.got, "message after five days")
	f.settled(hook, db.DeliveryFailed, 3)
	if now := f.read(hook); now.Enabled || !strings.Contains(now.DisabledReason, "five days") {
		t.Errorf("after five days of failures: %+v", now)
	}
	enabled := true
	now, err := f.db.UpdateWebhook(t.Context(), db.Scope{All: true}, hook.ID, db.WebhookPatch{Enabled: &enabled}, f.Now())
	if f.check(err); now.DisabledReason != "" || now.FailingSince != nil {
		t.Errorf("enabled as %+v", now)
	}
	r.answer(410)
	s.reach(ada)
	await.Receive(t, r.got, "message")
	f.settled(hook, db.DeliveryFailed, 1)
	if now := f.read(hook); now.Enabled || !strings.Contains(now.DisabledReason, "410") {
		t.Errorf("after 410: %+v", now)
	}
	if _, err := f.db.Redeliver(t.Context(), db.Scope{All: true}, hook.ID, f.deliveries(hook)[0].ID, f.Now()); !errors.Is(err, db.ErrWebhookDisabled) {
		t.Errorf("redelivered: %v", err)
	}
}

// dying is the store of a replica that is killed when it has sent a message.
type dying struct {
	*db.DB
	died chan struct{}
}

func (d dying) FinishDelivery(context.Context, db.DueDelivery, db.FinishedDelivery) error {
	close(d.died)
	return errors.New("killed")
}

func TestService_AnotherReplicaSendsWhatOneDidNotFinish(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	killed := dying{f.db, make(chan struct{})}
	first := f.start(func(o *webhooks.Options) { o.Store = killed })
	first.reach(ada)
	before := await.Receive(t, r.got, "message")
	await.Receive(t, killed.died, "end of the replica")
	first.stop()
	second := f.start()
	second.tick(pollEvery)
	f.advance(59 * time.Second)
	second.tick(pollEvery)
	if sent := f.deliveries(hook); sent[0].Attempts != 0 || len(r.got) != 0 {
		t.Fatalf("two replicas send one message: %+v", sent)
	}
	f.advance(2 * time.Second)
	second.tick(pollEvery)
	after := await.Receive(t, r.got, "message from the other replica")
	if before.header.Get("webhook-id") != after.header.Get("webhook-id") {
		t.Error("the message has another id")
	}
	f.settled(hook, db.DeliveryDelivered, 1)
}

func TestService_ASlowReceiverHoldsNoOther(t *testing.T) {
	f, slow, fast := newFleet(t), newReceiver(t), newReceiver(t)
	ada := f.user("ada@example.com")
	release := slow.hold()
	defer release()
	var held []db.Webhook
	for range 6 { // More than are sent to one target at a time.
		held = append(held, f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, slow.url, quotaReached))
	}
	other := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, fast.url, quotaReached)
	s := f.start()
	s.reach(ada)
	s.reach(ada)
	for range 4 {
		await.Receive(t, slow.got, "message to the slow receiver")
	}
	for range 2 {
		await.Receive(t, fast.got, "message to the fast receiver")
	}
	f.settled(other, db.DeliveryDelivered, 1)
	s.tick(pollEvery)
	if len(slow.got) != 0 {
		t.Error("the slow receiver gets more than four messages at a time")
	}
	release()
	for range 8 {
		await.Receive(t, slow.got, "message to the slow receiver")
	}
	for _, hook := range held {
		f.settled(hook, db.DeliveryDelivered, 1)
	}
}

// TestService_SlowReceiversOfOneOwnerHoldNoOther: each of them gets fewer messages than a target may have, and all
// together would have more than an owner may.
func TestService_SlowReceiversOfOneOwnerHoldNoOther(t *testing.T) {
	f := newFleet(t)
	ada, eve := f.user("ada@example.com"), f.user("eve@example.com")
	guild := dbtest.Organisation(t, f.db, "guild")
	for name, owner := range map[string]db.APIKeyOwner{"a user": {UserID: &ada}, "an organisation": {OrganisationID: &guild}, "the site": {}} {
		t.Run(name, func(t *testing.T) {
			f.exec(`DELETE FROM webhooks`)
			s := f.start()
			defer s.stop()
			slow, fast := []*receiver{newReceiver(t), newReceiver(t), newReceiver(t)}, newReceiver(t)
			var held []db.Webhook
			for _, r := range slow {
				release := r.hold()
				defer release()
				for range 3 {
					held = append(held, f.webhook(owner, types.WebhookStandard, r.url, quotaReached))
				}
			}
			reached := db.QuotaError{Resource: "devices", Limit: 1, Used: 1, UserID: ada}
			if owner.OrganisationID != nil {
				reached.UserID, reached.OrganisationID = 0, guild
			}
			f.check(s.QuotaReached(t.Context(), reached))
			sent := func() (n int) {
				for _, r := range slow {
					n += len(r.got)
				}
				return n
			}
			await.Until(t, "as many messages as one owner may have", func() bool { return sent() == 8 })
			other := f.webhook(db.APIKeyOwner{UserID: &eve}, types.WebhookStandard, fast.url, quotaReached)
			f.check(s.QuotaReached(t.Context(), db.QuotaError{Resource: "devices", Limit: 1, Used: 1, UserID: eve}))
			await.Receive(t, fast.got, "message of another owner")
			f.settled(other, db.DeliveryDelivered, 1)
			s.tick(pollEvery)
			if n := sent(); n != 8 {
				t.Errorf("%d messages of %d webhooks of one owner are being sent", n, len(held))
			}
		})
	}
}

func TestService_SignsWithBothSecretsForADay(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	s := f.start()
	fresh := webhooks.NewSecret()
	_, err := f.db.RotateWebhookSecret(t.Context(), db.Scope{All: true}, hook.ID, fresh, f.Now())
	f.check(err)
	for _, want := range []int{2, 1} {
		s.reach(ada)
		got := await.Receive(t, r.got, "message")
		got.verify(t, fresh)
		signatures := strings.Fields(got.header.Get("webhook-signature"))
		if len(signatures) != want || strings.Contains(got.header.Get("webhook-signature"), "whsec") {
			t.Fatalf("signatures %q", signatures)
		}
		if want == 2 {
			got.verify(t, hook.Secret)
		}
		f.settled(hook, db.DeliveryDelivered, 1)
		f.advance(24 * time.Hour)
	}
}

func TestService_RedeliversWithTheSameID(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	s := f.start()
	s.reach(ada)
	first := await.Receive(t, r.got, "message")
	sent := f.settled(hook, db.DeliveryDelivered, 1)
	again, err := f.db.Redeliver(t.Context(), db.Scope{UserID: ada}, hook.ID, sent.ID, f.Now())
	f.check(err)
	s.Wake()
	second := await.Receive(t, r.got, "message again")
	if again.ID == sent.ID || second.header.Get("webhook-id") != first.header.Get("webhook-id") {
		t.Errorf("redelivered as %+v with the id %s", again, second.header.Get("webhook-id"))
	}
	f.settled(hook, db.DeliveryDelivered, 1)
	eve := f.user("eve@example.com")
	if _, err := f.db.Redeliver(t.Context(), db.Scope{UserID: eve}, hook.ID, sent.ID, f.Now()); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("a stranger redelivers: %v", err)
	}
}

// TestRedeliver_DropsTheOldestOfTooMany: a receiver that does not answer has no more messages wait, however often its
// owner asks for one of them again.
func TestRedeliver_DropsTheOldestOfTooMany(t *testing.T) {
	f := newFleet(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, "https://example.com/hook", quotaReached)
	f.exec(`INSERT INTO webhook_deliveries (webhook_id, message_id, type, payload, created_at, state, next_at)
		SELECT $1, 'msg_' || n, 'webhook.test', '{"type":"webhook.test","timestamp":"2026-01-02T03:00:00Z","data":{}}', $2,
			CASE n WHEN 1 THEN 'delivered' ELSE 'pending' END, CASE WHEN n > 1 THEN $3::timestamptz END FROM generate_series(1, 1001) n`,
		hook.ID, f.Now(), f.Now().Add(time.Hour))
	deliveries := f.deliveries(hook)
	again, err := f.db.Redeliver(t.Context(), db.Scope{UserID: ada}, hook.ID, deliveries[len(deliveries)-1].ID, f.Now())
	f.check(err)
	count, err := f.db.PendingDeliveries(t.Context())
	f.check(err)
	if count != 1000 || f.deliveries(hook)[0].ID != again.ID || again.State != db.DeliveryPending {
		t.Errorf("%d messages wait, and %+v was asked for", count, again)
	}
}

func TestService_DropsTheOldestOfTooMany(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	f.exec(`INSERT INTO webhook_deliveries (webhook_id, message_id, type, payload, created_at, state, next_at)
		SELECT $1, 'msg_' || n, 'webhook.test', '{"type":"webhook.test","timestamp":"2026-01-02T03:00:00Z","data":{}}', $2, 'pending', $3 FROM generate_series(1, 1000) n`,
		hook.ID, f.Now(), f.Now().Add(time.Hour))
	s := f.start()
	s.reach(ada)
	await.Receive(t, r.got, "the newest message")
	all := f.deliveries(hook)
	oldest := all[len(all)-1]
	if oldest.State != db.DeliveryDropped || oldest.Error != "too many messages waited" || all[len(all)-2].State != db.DeliveryPending {
		t.Errorf("the oldest is %+v", oldest)
	}
	f.settled(hook, db.DeliveryDelivered, 1)
	f.exec(`UPDATE webhook_deliveries SET state = 'failed', next_at = NULL`)
	s.tick(pruneEvery)
	if kept := f.deliveries(hook); len(kept) != 1000 || kept[0].ID != all[0].ID {
		t.Errorf("%d deliveries are kept", len(kept))
	}
	f.advance(31 * 24 * time.Hour)
	s.tick(pruneEvery)
	f.nothing(hook, "all deliveries are older than 30 days")
}

// away is a store whose database does not respond for a time.
type away struct {
	*db.DB
	gone atomic.Bool
}

var errAway = errors.New("the database is away")

func (a *away) ClaimDeliveries(ctx context.Context, limit int, busy db.BusyWebhooks, lease time.Duration, at time.Time) ([]db.DueDelivery, error) {
	if a.gone.Load() {
		return nil, errAway
	}
	return a.DB.ClaimDeliveries(ctx, limit, busy, lease, at)
}

func (a *away) SweepWebhooks(ctx context.Context, sweep db.WebhookSweep) (int, error) {
	if a.gone.Load() {
		return 0, errAway
	}
	return a.DB.SweepWebhooks(ctx, sweep)
}

// TestService_GoesOnWhenTheDatabaseIsBack logs one line for each loop meanwhile.
func TestService_GoesOnWhenTheDatabaseIsBack(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, "device.offline")
	device, generation := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	store := &away{DB: f.db}
	var log testlog.Buffer
	s := f.start(func(o *webhooks.Options) { o.Store, o.Logger = store, slog.New(slog.NewTextHandler(&log, nil)) })
	s.pass(time.Minute)
	store.gone.Store(true)
	f.disconnect(device, generation)
	s.pass(2 * time.Minute)
	if lines := log.Count("webhooks wait for the database"); lines != 2 {
		t.Errorf("%d lines: %s", lines, log.String())
	}
	store.gone.Store(false)
	s.pass(80 * time.Second)
	if payload := await.Receive(t, r.got, "message").payload(t); payload.Data.Device.ID != device.ID {
		t.Errorf("told of %s", payload.Data.Device.ID)
	}
}

// TestService_LeavesToOthersWhatItCannotRead has replicas of which one has no secret key, as while that is replaced.
func TestService_LeavesToOthersWhatItCannotRead(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, quotaReached)
	keys, err := atrest.ParseKeys([]byte(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	f.check(err)
	sealed, err := db.Open(t.Context(), db.Options{URL: f.url, SecretKeys: keys})
	f.check(err)
	t.Cleanup(func() { f.check(sealed.Close()) })
	_, err = sealed.EncryptWebhooks(t.Context())
	f.check(err)
	without := f.start()
	without.reach(ada)
	without.tick(pollEvery)
	without.stop()
	if now := f.read(hook); now.Failures != 0 || !now.Enabled || len(r.got) != 0 {
		t.Errorf("the replica without the key left %+v", now)
	}
	with := f.start(func(o *webhooks.Options) { o.Store = sealed })
	f.advance(time.Minute)
	with.tick(pollEvery)
	await.Receive(t, r.got, "message").verify(t, hook.Secret)
}
