package webhooks_test

import (
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestService_TellsOfADeviceThatStaysOffline(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada, eve := f.user("ada@example.com"), f.user("eve@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, "device.offline", "device.online")
	foreign := f.webhook(db.APIKeyOwner{UserID: &eve}, types.WebhookStandard, r.url, "device.offline", "device.online")
	device, generation := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	s := f.start()
	s.pass(time.Minute)

	f.disconnect(device, generation)
	s.pass(50 * time.Second)
	generation = f.connect(device)
	s.pass(2 * time.Minute)
	f.nothing(hook, "the device was offline for less than the delay")

	f.disconnect(device, generation)
	s.pass(50 * time.Second)
	f.nothing(hook, "the delay has not passed")
	s.pass(20 * time.Second)
	offline := await.Receive(t, r.got, "message that the device is offline")
	offline.verify(t, hook.Secret)
	payload := offline.payload(t)
	if payload.Type != "device.offline" || payload.Data.Device == nil || payload.Data.Device.ID != device.ID || payload.Data.Device.Online {
		t.Errorf("told %s", offline.body)
	}
	if offline.method != "POST" || offline.path != "/hook?token=a-secret" || offline.header.Get("Content-Type") != "application/json" ||
		!strings.HasPrefix(offline.header.Get("User-Agent"), "EcliTunnel-Webhooks/") {
		t.Errorf("sent %+v", offline)
	}
	s.pass(5 * time.Minute)

	f.connect(device)
	s.pass(10 * time.Second)
	online := await.Receive(t, r.got, "message that the device is online")
	if payload := online.payload(t); payload.Type != "device.online" || !payload.Data.Device.Online {
		t.Errorf("told %s", online.body)
	}
	if id := online.header.Get("webhook-id"); id == offline.header.Get("webhook-id") || !strings.HasPrefix(id, "msg_") {
		t.Errorf("two messages have the id %s", id)
	}
	s.pass(time.Minute)
	f.settled(hook, db.DeliveryDelivered, 1)
	if sent := f.deliveries(hook); len(sent) != 2 {
		t.Errorf("%d messages", len(sent))
	}
	f.nothing(foreign, "the device is another user's")
}

// TestService_DoesNotTakeItsOwnOutageForThatOfDevices: while no panel runs, no device can be connected.
func TestService_DoesNotTakeItsOwnOutageForThatOfDevices(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, "device.offline")
	device, _ := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	s := f.start()
	s.pass(time.Minute)
	f.exec(`UPDATE devices SET last_seen_at = $1`, f.Now())
	f.exec(`UPDATE replicas SET renewed_at = $1, lease_expires_at = now() - interval '1 minute'`, f.Now())
	f.advance(time.Hour)
	s.pass(20 * time.Second)
	f.nothing(hook, "the device has had no time to connect")
	s.pass(time.Minute)
	if payload := await.Receive(t, r.got, "message").payload(t); payload.Data.Device.ID != device.ID {
		t.Errorf("told of %s", payload.Data.Device.ID)
	}
}

func TestService_TellsOfAnAllocationThatFailed(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	hook := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, "allocation.failed", "allocation.recovered")
	client, _ := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	server, _ := f.device(db.KindServer, db.APIKeyOwner{})
	rows, err := f.db.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: client.ID, ServerID: &server.ID, Protocols: []string{"tcp"}, LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60,
	})
	f.check(err)
	report := func(clientState, serverState string) {
		f.exec(`UPDATE allocations SET client_state = $1, server_state = $2, server_reason = CASE WHEN $2 = 'failed' THEN 'the port is in use' ELSE '' END`, clientState, serverState)
	}
	s := f.start()
	s.pass(10 * time.Second)
	report("ready", "failed")
	s.pass(50 * time.Second)
	report("pending", "ready")
	s.pass(2 * time.Minute)
	f.nothing(hook, "it had failed for less than the delay, and is pending")

	report("ready", "failed")
	s.pass(80 * time.Second)
	failed := await.Receive(t, r.got, "message that the allocation failed").payload(t)
	if a := failed.Data.Allocation; failed.Type != "allocation.failed" || a == nil || a.ID != rows[0].ID || a.StatusReason.MustGet() != "the port is in use" {
		t.Errorf("told %+v", failed)
	}
	for _, states := range [][2]string{{"ready", "pending"}, {"pending", "ready"}} {
		report(states[0], states[1])
		s.pass(time.Minute)
	}
	if sent := f.deliveries(hook); len(sent) != 1 {
		t.Fatalf("a pending allocation has recovered: %s", sent[0].Payload)
	}
	report("ready", "ready")
	s.pass(10 * time.Second)
	if recovered := await.Receive(t, r.got, "message that the allocation recovered").payload(t); recovered.Type != "allocation.recovered" ||
		recovered.Data.Allocation.Status != types.AllocationListening {
		t.Errorf("told %+v", recovered)
	}
}

// TestService_TellsOfAnEnrollmentWithoutItsCode: whoever has the code can have the device approved as theirs.
func TestService_TellsOfAnEnrollmentWithoutItsCode(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada := f.user("ada@example.com")
	guild := dbtest.Organisation(t, f.db, "guild")
	own := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, "enrollment.waiting")
	site := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, r.url, "enrollment.waiting")
	other := f.webhook(db.APIKeyOwner{OrganisationID: &guild}, types.WebhookStandard, r.url, "enrollment.waiting")
	s := f.start()
	s.pass(10 * time.Second)
	device := f.waiting("home", "CDFG-2345", ada)
	s.pass(20 * time.Second)
	for range 2 {
		got := await.Receive(t, r.got, "message")
		payload := got.payload(t)
		if payload.Type != "enrollment.waiting" || payload.Data.Device.ID != device.ID || *payload.Data.ApprovalURL != "https://panel.example.com/device" {
			t.Errorf("told %s", got.body)
		}
		if strings.Contains(string(got.body), "CDFG") {
			t.Errorf("the message has the user code: %s", got.body)
		}
	}
	f.nothing(other, "the device is not the organisation's")
	approve := true
	_, err := f.db.UpdateSettings(t.Context(), db.SettingsPatch{OwnersApprove: &approve})
	f.check(err)
	f.waiting("home", "CDFG-2346", ada)
	s.pass(10 * time.Second)
	await.Receive(t, r.got, "message to the owner")
	if waits, told := f.deliveries(site), f.deliveries(own); len(waits) != 1 || len(told) != 2 {
		t.Errorf("%d messages to the site, of those for owners to approve, and %d to the owner", len(waits), len(told))
	}
}

// TestService_TellsOnlyWhoseDeviceItIs moves a device while it is offline.
func TestService_TellsOnlyWhoseDeviceItIs(t *testing.T) {
	f, r := newFleet(t), newReceiver(t)
	ada, eve := f.user("ada@example.com"), f.user("eve@example.com")
	guild := dbtest.Organisation(t, f.db, "guild")
	both := []string{"device.offline", "device.online"}
	before := f.webhook(db.APIKeyOwner{UserID: &ada}, types.WebhookStandard, r.url, both...)
	after := f.webhook(db.APIKeyOwner{OrganisationID: &guild}, types.WebhookStandard, r.url, both...)
	site := f.webhook(db.APIKeyOwner{}, types.WebhookStandard, r.url, both...)
	member := f.webhook(db.APIKeyOwner{UserID: &eve}, types.WebhookStandard, r.url, both...)
	dbtest.Member(t, f.db, guild, eve, db.RoleOwner)
	device, generation := f.device(db.KindClient, db.APIKeyOwner{UserID: &ada})
	s := f.start()
	s.pass(time.Minute)
	f.disconnect(device, generation)
	s.pass(80 * time.Second)
	f.exec(`UPDATE devices SET owner_id = NULL, organisation_id = $1`, guild)
	f.connect(device)
	s.pass(time.Minute)
	for hook, want := range map[*db.Webhook]int{&before: 1, &after: 0, &site: 2, &member: 0} {
		if sent := f.deliveries(*hook); len(sent) != want {
			t.Errorf("webhook %d got %d messages, want %d", hook.ID, len(sent), want)
		}
	}
}
