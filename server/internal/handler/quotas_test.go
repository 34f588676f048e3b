package handler_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// wantExcess checks that a request is refused because of a quota.
func wantExcess(t *testing.T, a answer, resource types.QuotaResource, limit, used int) {
	t.Helper()
	refused := wantError(t, a, 409, types.CodeQuotaExceeded)
	if want := (types.QuotaExcess{Resource: resource, Limit: limit, Used: used}); refused.Quota == nil || *refused.Quota != want {
		t.Errorf("%s %s answered %s, want %+v", a.method, a.path, a.body, want)
	}
}

// wantQuotas checks what a request answers, in JSON.
func wantQuotas(t *testing.T, a answer, want string) {
	t.Helper()
	decode[types.Quota](t, a, 200)
	if got := strings.TrimSpace(string(a.body)); got != want {
		t.Errorf("%s %s answered %s, want %s", a.method, a.path, got, want)
	}
}

// TestQuotas_AreSetByAdminsAndSeenByOwners sets, sees and reaches each of them.
func TestQuotas_AreSetByAdminsAndSeenByOwners(t *testing.T) {
	p := newPanel(t)
	admin, ada, mia := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "mia@example.com", "user")
	p.server(t, 20999)
	guild := p.organisation(t, admin, ada, "guild")
	dbtest.Member(t, p.db, guild.ID, mia.user.ID, "member")
	own, ofUser, ofGuild := "/api/account/quota", userPath(ada.user.ID)+"/quota", organisationPath(guild.ID)+"/quota"
	const none = `{"allocations":{"limit":null,"own":null,"used":0},"devices":{"limit":null,"own":null,"used":0},"portsOutsideRange":{"limit":%s,"own":null,"used":0}}`
	for _, seen := range []answer{ada.send(t, "GET", own, nil), admin.send(t, "GET", ofUser, nil), ada.send(t, "GET", ofGuild, nil), mia.send(t, "GET", ofGuild, nil)} {
		wantQuotas(t, seen, fmt.Sprintf(none, "0"))
	}
	wantQuotas(t, admin.send(t, "GET", own, nil), fmt.Sprintf(none, "null"))
	for _, path := range []string{ofUser, ofGuild} {
		wantError(t, ada.send(t, "PATCH", path, `{"devices":100}`), 403, types.CodeForbidden)
		wantField(t, admin.send(t, "PATCH", path, `{"devices":-1}`), "devices")
		wantField(t, admin.send(t, "PATCH", path, `{"ports":1}`), "ports")
	}
	wantError(t, admin.send(t, "PATCH", "/api/users/999/quota", `{"devices":1}`), 404, types.CodeNotFound)
	wantError(t, admin.send(t, "PATCH", "/api/organisations/999/quota", `{"devices":1}`), 404, types.CodeNotFound)

	// A limit of the site, the user's own in its place, and again that of the site.
	settings := decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"quota":{"devices":1}}`), 200)
	if text, err := json.Marshal(settings.Quota); err != nil || string(text) != `{"allocations":null,"devices":1,"portsOutsideRange":0}` {
		t.Errorf("the quota of the site is %s, %v", text, err)
	}
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	second := decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", `{"name":"second"}`), 200)
	approve := func() answer {
		return admin.send(t, "POST", "/api/tunnel/device/approve", map[string]string{"userCode": second.UserCode})
	}
	wantExcess(t, approve(), types.QuotaDevices, 1, 1)
	wantExcess(t, admin.send(t, "POST", "/api/tunnel/devices", map[string]any{"name": "third", "ownerId": ada.user.ID}), types.QuotaDevices, 1, 1)
	decode[types.Quota](t, admin.send(t, "PATCH", ofUser, `{"devices":2}`), 200)
	decode[types.DeviceApproved](t, approve(), 200)
	wantQuotas(t, admin.send(t, "PATCH", ofUser, `{"devices":null,"allocations":2}`),
		`{"allocations":{"limit":2,"own":2,"used":0},"devices":{"limit":1,"own":null,"used":2},"portsOutsideRange":{"limit":0,"own":null,"used":0}}`)

	// A run is allocated as a whole or not at all, for admins too.
	wantExcess(t, agent.send(t, "POST", allocations, newAllocation(device, "count", 3)), types.QuotaAllocations, 2, 0)
	wantExcess(t, admin.send(t, "POST", allocations, newAllocation(device, "count", 3)), types.QuotaAllocations, 2, 0)
	decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "count", 2)), 201)
	wantExcess(t, ada.send(t, "POST", allocations, newAllocation(device)), types.QuotaAllocations, 2, 2)

	// Only an admin asks for a port outside the range, until the quota permits it.
	decode[types.Quota](t, admin.send(t, "PATCH", ofUser, `{"allocations":null}`), 200)
	wantExcess(t, agent.send(t, "POST", allocations, newAllocation(device, "port", 25565)), types.QuotaPortsOutsideRange, 0, 0)
	made := decode[types.AllocationCreated](t, admin.send(t, "POST", allocations, newAllocation(device, "port", 25565)), 201)
	path := fmt.Sprintf("%s/%d", allocations, made.ID)
	decode[types.Allocation](t, agent.send(t, "PATCH", path, `{"port":25565,"name":"kept"}`), 200)
	wantExcess(t, ada.send(t, "PATCH", path, `{"port":25566}`), types.QuotaPortsOutsideRange, 0, 0)
	decode[types.Quota](t, admin.send(t, "PATCH", ofUser, `{"portsOutsideRange":2}`), 200)
	decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device, "port", 25566, "protocol", "tcp+udp")), 201)
	wantExcess(t, ada.send(t, "POST", allocations, newAllocation(device, "port", 25567)), types.QuotaPortsOutsideRange, 2, 2)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "port", 80)), 403, types.CodeForbidden)

	// Another owner, and one who is to be deleted.
	decode[types.Quota](t, admin.send(t, "PATCH", ofGuild, `{"allocations":4}`), 200)
	give := map[string]any{"organisationId": guild.ID}
	wantExcess(t, ada.send(t, "PATCH", "/api/tunnel/devices/"+device.ID.String(), give), types.QuotaAllocations, 4, 0)
	decode[types.Organisation](t, admin.send(t, "PATCH", organisationPath(guild.ID)+"/members/"+fmt.Sprint(mia.user.ID), `{"role":"owner"}`), 200)
	remove := userPath(ada.user.ID) + fmt.Sprintf("?devices=move&newOwnerId=%d", mia.user.ID)
	wantExcess(t, admin.send(t, "DELETE", remove, nil), types.QuotaDevices, 1, 0)

	// The owner sees in the trail who changed what.
	entry := decode[[]types.AuditEntry](t, ada.send(t, "GET", "/api/audit?action=user.update&limit=1", nil), 200)[0]
	text, err := json.Marshal(entry.Changes)
	if err != nil || string(text) != `{"quota":[{},{"portsOutsideRange":2}]}` {
		t.Errorf("the trail has %s, %v", text, err)
	}
}

// TestQuotas_AreExactAcrossPanels lets 50 requests to two panels on one database ask for what 7 can have.
func TestQuotas_AreExactAcrossPanels(t *testing.T) {
	url, now := dbtest.URL(t), time.Now().UTC().Truncate(time.Second)
	p := newReplica(t, dbtest.Open(t, url), now)
	other := newReplica(t, dbtest.Open(t, url), now)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20999)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	decode[types.Quota](t, admin.send(t, "PATCH", userPath(ada.user.ID)+"/quota", `{"devices":8,"allocations":7}`), 200)
	for name, c := range map[string]struct {
		caller caller
		path   string
		body   any
	}{
		"devices":     {admin, "/api/tunnel/devices", map[string]any{"name": "home", "ownerId": ada.user.ID}},
		"allocations": {agent, allocations, newAllocation(device)},
	} {
		var created atomic.Int64
		var calls sync.WaitGroup
		for n := range 50 {
			calls.Go(func() {
				by := c.caller
				if n%2 == 1 {
					by.panel = other
				}
				for {
					switch a := by.send(t, "POST", c.path, c.body); a.status {
					case http.StatusCreated:
						created.Add(1)
					case http.StatusServiceUnavailable: // The database has no time.
						continue
					default:
						if a.status != http.StatusConflict || !strings.Contains(string(a.body), string(types.CodeQuotaExceeded)) {
							t.Errorf("answered %d %s", a.status, a.body)
						}
					}
					return
				}
			})
		}
		calls.Wait()
		if created.Load() != 7 {
			t.Errorf("%d %s were created, want 7", created.Load(), name)
		}
	}
}
