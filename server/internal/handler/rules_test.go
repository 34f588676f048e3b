package handler_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// ownRules returns the rules among the options of an answer.
func ownRules(t *testing.T, a answer, status int) map[string]any {
	t.Helper()
	var body struct{ Options map[string]any }
	decode[struct{}](t, a, status)
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proxyProtocol", "udpIdleSeconds", "playerAddresses"} {
		if _, ok := body.Options[name]; !ok {
			t.Errorf("the options lack %s: %s", name, a.body)
		}
		delete(body.Options, name)
	}
	return body.Options
}

func wantRules(t *testing.T, what string, got map[string]any, want string) {
	t.Helper()
	var rules map[string]any
	if err := json.Unmarshal([]byte(want), &rules); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, rules) {
		t.Errorf("%s: rules are %v, want %s", what, got, want)
	}
}

// inEffect returns the rules in effect of an allocation.
func (c caller) inEffect(t *testing.T, path string) types.AllocationRules {
	t.Helper()
	return decode[types.AllocationDetail](t, c.send(t, "GET", path, nil), 200).Rules
}

func TestRules_OptionsSetKeepAndRemoveThem(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20999)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	created := ada.send(t, "POST", allocations, newAllocation(device, "protocol", "tcp+udp", "options", map[string]any{
		"allow": []string{"192.0.2.0/24", "2001:db8::/32"}, "deny": []string{}, "maxPlayers": 40, "maxPlayersPerSource": nil,
		"uploadBitsPerSecond": 100_000_000_000,
	}))
	const first = `{"allow":["192.0.2.0/24","2001:db8::/32"],"maxPlayers":40,"uploadBitsPerSecond":100000000000}`
	wantRules(t, "created", ownRules(t, created, 201), first)
	made := decode[types.AllocationCreated](t, created, 201)
	path := fmt.Sprintf("%s/%d", allocations, made.ID)
	wantRules(t, "of the other protocol", ownRules(t, ada.send(t, "GET", fmt.Sprintf("%s/%d", allocations, made.Allocations[1].ID), nil), 200), first)

	for _, step := range []struct{ patch, want string }{
		{`{"name":"x"}`, first},
		{`{"options":{}}`, first},
		{`{"options":{"udpIdleSeconds":30}}`, first},
		{`{"options":{"maxPlayers":7,"deny":["192.0.2.7"]}}`, `{"allow":["192.0.2.0/24","2001:db8::/32"],"deny":["192.0.2.7"],"maxPlayers":7,"uploadBitsPerSecond":100000000000}`},
		{`{"options":{"allow":[],"uploadBitsPerSecond":null}}`, `{"deny":["192.0.2.7"],"maxPlayers":7}`},
		{`{"options":{"deny":null,"maxFlowsPerSource":9,"playerUploadBitsPerSecond":8000}}`, `{"maxPlayers":7,"maxFlowsPerSource":9,"playerUploadBitsPerSecond":8000}`},
		{`{"options":{"maxPlayers":null,"maxFlowsPerSource":null,"playerUploadBitsPerSecond":null,"connectionsPerSecond":null}}`, `{}`},
	} {
		wantRules(t, "patched by "+step.patch, ownRules(t, agent.send(t, "PATCH", path, step.patch), 200), step.want)
		wantRules(t, "read after "+step.patch, ownRules(t, ada.send(t, "GET", path, nil), 200), step.want)
	}
	got := decode[types.Allocation](t, ada.send(t, "GET", path, nil), 200)
	if got.Name != "x" || *got.Options.UDPIdleSeconds != 30 {
		t.Errorf("other fields are %+v", got)
	}
}

func TestRules_BadOnesAreRefusedAndChangeNothing(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20999)
	device, _ := p.device(t, admin, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, admin.send(t, "POST", allocations, newAllocation(device, "options", map[string]any{"maxPlayers": 3})), 201)
	path := fmt.Sprintf("%s/%d", allocations, made.ID)
	for options, field := range map[string]string{
		`{"allow":["192.0.2.0/33"]}`:                "options.allow.0",
		`{"deny":["192.0.2.7","game.example.com"]}`: "options.deny.1",
		`{"deny":[""]}`:                             "options.deny.0",
		`{"deny":["fe80::1%eth0"]}`:                 "options.deny.0",
		`{"deny":[null]}`:                           "options.deny.0",
		`{"deny":"192.0.2.7"}`:                      "options.deny",
		`{"maxPlayers":0}`:                          "options.maxPlayers",
		`{"maxPlayers":100001}`:                     "options.maxPlayers",
		`{"maxPlayers":"9"}`:                        "options.maxPlayers",
		`{"datagramsPerSecondPerSource":-1}`:        "options.datagramsPerSecondPerSource",
		`{"downloadBitsPerSecond":7999}`:            "options.downloadBitsPerSecond",
		`{"maxPlayers":4,"most":1}`:                 "options.most",
		`{"allow":[` + strings.Repeat(`"192.0.2.1",`, 1000) + `"::1"]}`:       "options.allow",
		`{"maxPlayers":5,"playerDownloadBitsPerSecond":100000000001}`:         "options.playerDownloadBitsPerSecond",
		`{"connectionsPerSecond":1.5}`:                                        "options.connectionsPerSecond",
		`{"connectionsPerSecondPerSource":{"value":1},"maxFlowsPerSource":3}`: "options.connectionsPerSecondPerSource",
	} {
		wantField(t, admin.send(t, "PATCH", path, `{"options":`+options+`}`), field)
		wantField(t, admin.send(t, "POST", allocations, newAllocation(device, "options", json.RawMessage(options))), field)
	}
	wantRules(t, "afterwards", ownRules(t, admin.send(t, "GET", path, nil), 200), `{"maxPlayers":3}`)
	for _, path := range []string{"/api/admin/settings", "/api/organisations/1/rules"} {
		for limits, field := range map[string]string{`{"maxPlayers":0}`: "maxPlayers", `{"deny":["192.0.2.7"]}`: "deny"} {
			if path == "/api/admin/settings" {
				limits, field = `{"rules":{"defaults":`+limits+`}}`, "rules.defaults."+field
			}
			wantField(t, admin.send(t, "PATCH", path, limits), field)
		}
	}
}

func TestRules_InEffectAreThoseOfWhoeverIsNearest(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	organisation := dbtest.Organisation(t, p.db, "guild")
	dbtest.Member(t, p.db, organisation, ada.user.ID, "owner")
	p.server(t, 20999)
	started := decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": "home", "organisationId": organisation}), 200)
	theirs := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode}), 200).Device
	private, _ := p.device(t, ada, admin, types.DeviceKindClient)
	at := func(device types.Device) string {
		made := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device)), 201)
		return fmt.Sprintf("%s/%d", allocations, made.ID)
	}
	path, other := at(theirs), at(private)
	rules := fmt.Sprintf("/api/organisations/%d/rules", organisation)

	want := func(what, path string, maxPlayers int, download *int64) {
		t.Helper()
		got := ada.inEffect(t, path)
		if got.MaxPlayers == nil || *got.MaxPlayers != maxPlayers || !reflect.DeepEqual(got.DownloadBitsPerSecond, download) {
			t.Errorf("%s: %+v", what, got)
		}
	}
	want("built in", path, 1000, nil)
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"rules":{"defaults":{"maxPlayers":500,"downloadBitsPerSecond":9000}}}`), 200)
	want("the site", path, 500, new(int64(9000)))
	wantRules(t, "the organisation's", decode[map[string]any](t, ada.send(t, "PATCH", rules, `{"maxPlayers":50}`), 200), `{"maxPlayers":50}`)
	want("the organisation", path, 50, new(int64(9000)))
	want("not of the organisation", other, 500, new(int64(9000)))
	wantRules(t, "own", ownRules(t, ada.send(t, "PATCH", path, `{"options":{"maxPlayers":60,"downloadBitsPerSecond":20000}}`), 200), `{"maxPlayers":60,"downloadBitsPerSecond":20000}`)
	want("its own", path, 60, new(int64(20_000)))
	settings := decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"rules":{"defaults":{"maxPlayers":null},"ceiling":{"downloadBitsPerSecond":10000}}}`), 200)
	if settings.Rules.Defaults.MaxPlayers.IsSpecified() || settings.Rules.Defaults.DownloadBitsPerSecond.MustGet() != 9000 || settings.Rules.Ceiling.DownloadBitsPerSecond.MustGet() != 10_000 {
		t.Errorf("settings are %+v", settings.Rules)
	}
	want("its own under the ceiling", path, 60, new(int64(10_000)))
	want("built in again", other, 1000, new(int64(9000)))
	decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", `{"rules":{"defaults":{"downloadBitsPerSecond":null}}}`), 200)
	want("the ceiling bounds what is absent", other, 1000, new(int64(10_000)))
	if decode[types.Settings](t, admin.send(t, "GET", "/api/admin/settings", nil), 200).Rules.Defaults.DownloadBitsPerSecond.IsSpecified() {
		t.Error("the default is still there")
	}
}

func TestRules_OfAnOrganisationAreForThoseWhoManageIt(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	organisation, another := dbtest.Organisation(t, p.db, "guild"), dbtest.Organisation(t, p.db, "clan")
	path := fmt.Sprintf("/api/organisations/%d/rules", organisation)
	managers := []string{"owner", "admin"}
	for i, role := range []string{"owner", "admin", "member", "stranger"} {
		who := p.user(t, role+"@example.com", "user")
		of := organisation
		if role == "stranger" {
			of, role = another, "owner"
		}
		dbtest.Member(t, p.db, of, who.user.ID, role)
		if of == another || !slices.Contains(managers, role) {
			if of == another {
				wantError(t, who.send(t, "GET", path, nil), 404, types.CodeNotFound)
				wantError(t, who.send(t, "PATCH", path, `{"maxPlayers":1}`), 404, types.CodeNotFound)
				continue
			}
			wantRules(t, role, decode[map[string]any](t, who.send(t, "GET", path, nil), 200), `{"maxPlayers":2}`)
			wantError(t, who.send(t, "PATCH", path, `{"maxPlayers":1}`), 403, types.CodeForbidden)
			continue
		}
		want := fmt.Sprintf(`{"maxPlayers":%d}`, i+1)
		wantRules(t, role, decode[map[string]any](t, who.send(t, "PATCH", path, want), 200), want)
		wantRules(t, role, decode[map[string]any](t, who.send(t, "GET", path, nil), 200), want)
	}
	wantRules(t, "the panel's admin", decode[map[string]any](t, admin.send(t, "PATCH", path, `{"maxPlayers":null,"uploadBitsPerSecond":8000}`), 200), `{"uploadBitsPerSecond":8000}`)
	wantRules(t, "nothing", decode[map[string]any](t, admin.send(t, "PATCH", path, `{}`), 200), `{"uploadBitsPerSecond":8000}`)
	wantError(t, admin.send(t, "GET", "/api/organisations/99/rules", nil), 404, types.CodeNotFound)
	wantError(t, p.anonymous().send(t, "GET", path, nil), 401, types.CodeUnauthorized)
	_, agent := p.device(t, admin, admin, types.DeviceKindClient)
	wantError(t, agent.send(t, "GET", path, nil), 403, types.CodeForbidden)
}
