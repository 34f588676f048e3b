package handler_test

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestDevices_ShowTheirState(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", `{"name":"x"}`), 200)
	pending := decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices", nil), 200)[0]
	if pending.Approved || pending.UserCode.IsNull() || pending.ExpiresAt.IsNull() || !pending.Server.IsNull() || !pending.LastSeenAt.IsNull() || pending.OwnerID.MustGet() != ada.user.ID {
		t.Errorf("pending: %+v", pending)
	}
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	if !device.Approved || !device.UserCode.IsNull() || !device.ExpiresAt.IsNull() || device.Online {
		t.Errorf("approved: %+v", device)
	}
	p.connect(t, device.ID)
	device = decode[types.Device](t, agent.send(t, "GET", "/api/tunnel/devices/"+device.ID.String(), nil), 200)
	if !device.Online || device.AgentVersion.MustGet() != "0.1.0" || device.Platform.MustGet() != "linux/amd64" || device.LastSeenAt.IsNull() {
		t.Errorf("online: %+v", device)
	}
}

func TestDevices_TunnelServerShowsItsSettingsOnceApproved(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"edge","kind":"server"}`), 200)
	pending := decode[[]types.Device](t, admin.send(t, "GET", "/api/tunnel/devices", nil), 200)[0]
	if !pending.Server.IsNull() {
		t.Errorf("pending: %+v", pending)
	}
	device, _ := p.device(t, admin, admin, types.DeviceKindServer)
	if got := device.Server.MustGet().PortRange; got.First != 20000 || got.Last != 29999 {
		t.Errorf("ports are %+v", got)
	}
}

func TestDevices_AreVisibleToThoseTheyConcern(t *testing.T) {
	p := newPanel(t)
	admin, ada, bob := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "bob@example.com", "user")
	carol, dave := p.user(t, "carol@example.com", "user"), p.user(t, "dave@example.com", "user")
	guild := dbtest.Organisation(t, p.db, "guild")
	dbtest.Member(t, p.db, guild, carol.user.ID, "admin")
	dbtest.Member(t, p.db, guild, dave.user.ID, "member")
	own, agent := p.device(t, ada, admin, types.DeviceKindClient)
	_, otherAgent := p.device(t, bob, admin, types.DeviceKindClient)
	started := decode[types.Enrollment](t, carol.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": "guild", "organisationId": guild}), 200)
	decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode}), 200)

	for name, test := range map[string]struct {
		caller caller
		sees   int
	}{
		"admin": {admin, 3}, "ada": {ada, 1}, "bob": {bob, 1}, "carol": {carol, 1}, "dave": {dave, 1},
	} {
		if got := decode[[]types.Device](t, test.caller.send(t, "GET", "/api/tunnel/devices", nil), 200); len(got) != test.sees {
			t.Errorf("%s sees %d devices, want %d", name, len(got), test.sees)
		}
	}
	path := "/api/tunnel/devices/" + own.ID.String()
	for _, other := range []caller{bob, carol, otherAgent} {
		wantError(t, other.send(t, "GET", path, nil), 404, types.CodeNotFound)
	}
	wantError(t, bob.send(t, "PATCH", path, `{"name":"mine"}`), 404, types.CodeNotFound)
	wantError(t, bob.send(t, "DELETE", path+"/delete", nil), 404, types.CodeNotFound)
	wantError(t, bob.send(t, "POST", path+"/regenerate-token", nil), 404, types.CodeNotFound)
	wantError(t, agent.send(t, "GET", "/api/tunnel/devices", nil), 403, types.CodeForbidden)
	wantError(t, agent.send(t, "PATCH", path, `{"name":"mine"}`), 403, types.CodeForbidden)
	wantError(t, agent.send(t, "DELETE", path+"/delete", nil), 403, types.CodeForbidden)
	wantError(t, p.anonymous().send(t, "GET", path, nil), 401, types.CodeUnauthorized)
	wantError(t, admin.send(t, "GET", "/api/tunnel/devices/"+uuid.NewString(), nil), 404, types.CodeNotFound)
}

func TestDevices_RenameRegenerateDelete(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	path := "/api/tunnel/devices/" + device.ID.String()
	if got := decode[types.Device](t, ada.send(t, "PATCH", path, `{"name":" attic "}`), 200); got.Name != "attic" {
		t.Errorf("renamed to %q", got.Name)
	}
	wantField(t, ada.send(t, "PATCH", path, `{"name":"x","approved":true}`), "approved")
	token := decode[types.TokenRegenerated](t, ada.send(t, "POST", path+"/regenerate-token", nil), 200).Token
	wantError(t, agent.send(t, "GET", path, nil), 401, types.CodeTokenRevoked)
	agent.token = token
	decode[types.Device](t, agent.send(t, "GET", path, nil), 200)
	decode[types.Success](t, ada.send(t, "DELETE", path+"/delete", nil), 200)
	wantError(t, ada.send(t, "DELETE", path+"/delete", nil), 404, types.CodeNotFound)
	wantError(t, agent.send(t, "GET", path, nil), 401, types.CodeDeviceDeleted)
}

func TestDevices_PendingDeviceHasNoToken(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", `{"name":"x"}`), 200)
	id := decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices", nil), 200)[0].ID.String()
	wantError(t, ada.send(t, "POST", "/api/tunnel/devices/"+id+"/regenerate-token", nil), 409, types.CodeConflict)
}

var nextLink = regexp.MustCompile(`^<(/[^>]+)>; rel="next"$`)

func TestDevices_PageThroughWithLinks(t *testing.T) {
	p := newPanel(t)
	ada := p.user(t, "ada@example.com", "user")
	for i := range 5 {
		p.advance(time.Second)
		decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": fmt.Sprint(i)}), 200)
	}
	var names string
	pages := 0
	for path := "/api/tunnel/devices?limit=2"; path != ""; pages++ {
		a := ada.send(t, "GET", path, nil)
		for _, device := range decode[[]types.Device](t, a, 200) {
			names += device.Name
		}
		path = ""
		if match := nextLink.FindStringSubmatch(a.header.Get("Link")); match != nil {
			path = match[1]
		}
	}
	if names != "43210" || pages != 3 {
		t.Errorf("%d pages listed %s", pages, names)
	}
	if a := ada.send(t, "GET", "/api/tunnel/devices?limit=5", nil); a.header.Get("Link") != "" {
		t.Errorf("a whole list leads on to %s", a.header.Get("Link"))
	}
}

func TestDevices_PagesOutliveTheirDevices(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	for i := range 6 {
		p.advance(time.Second)
		decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": fmt.Sprint(i)}), 200)
	}
	list := func(path string) (devices []types.Device, names, next string) {
		t.Helper()
		a := admin.send(t, "GET", path, nil)
		devices = decode[[]types.Device](t, a, 200)
		for _, device := range devices {
			names += device.Name
		}
		if match := nextLink.FindStringSubmatch(a.header.Get("Link")); match != nil {
			next = match[1]
		}
		return devices, names, next
	}
	first, _, next := list("/api/tunnel/devices?limit=2")
	last := first[1].ID.String()

	// Clients of the first version continue after the id of the last device.
	if _, names, _ := list("/api/tunnel/devices?limit=2&after=" + last); names != "32" {
		t.Errorf("after the id of device 4 follow %s, want 32", names)
	}
	if _, names, _ := list("/api/tunnel/devices?limit=2&after=" + strings.ToUpper(last)); names != "32" {
		t.Errorf("after the id of device 4 in upper case follow %s, want 32", names)
	}

	// The last device of the page goes, and the first one of the next page.
	second, _, _ := list(next)
	for _, device := range []types.Device{first[1], second[0]} {
		decode[types.Success](t, admin.send(t, "DELETE", "/api/tunnel/devices/"+device.ID.String()+"/delete", nil), 200)
	}
	if _, names, _ := list(next); names != "21" {
		t.Errorf("after deletions the next page has %s, want 21", names)
	}

	for name, after := range map[string]string{
		"the id of a deleted device": last,
		"an unknown id":              uuid.NewString(),
		"text":                       "first",
		"a truncated cursor":         "AAYxAqf3wAA_DipsbwtMDp9XDW888vm",
		"a time out of range":        strings.Repeat("_", 32),
	} {
		t.Run(name, func(t *testing.T) {
			wantField(t, admin.send(t, "GET", "/api/tunnel/devices?after="+after, nil), "after")
		})
	}
}

func TestDevices_TunnelServerDefaultsToTheHostItEnrollsFrom(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	host := func(body, from string) (string, bool) {
		t.Helper()
		a := admin.send(t, "POST", "/api/tunnel/device/start", body, "X-Forwarded-For", from)
		code := decode[types.Enrollment](t, a, 200).UserCode
		approved := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": code}), 200)
		server := approved.Device.Server.MustGet()
		return server.PublicHost, server.PublicHostGuessed
	}
	for _, test := range []struct {
		body, from, want string
		guessed          bool
	}{
		{`{"name":"edge","kind":"server"}`, "198.51.100.7", "198.51.100.7", true},
		{`{"name":"edge","kind":"server"}`, "2001:db8::7", "2001:db8::7", true},
		{`{"name":"edge","kind":"server"}`, "192.168.1.5", "192.168.1.5", true},
		{`{"name":"edge","kind":"server"}`, "127.0.0.1", "panel.example.com", true},
		{`{"name":"edge","kind":"server","server":{"publicHost":""}}`, "198.51.100.7", "198.51.100.7", true},
		{`{"name":"edge","kind":"server","server":{"publicHost":"fra1.example.com"}}`, "198.51.100.7", "fra1.example.com", false},
	} {
		if got, guessed := host(test.body, test.from); got != test.want || guessed != test.guessed {
			t.Errorf("%s from %s has the host %s, guessed %v; want %s", test.body, test.from, got, guessed, test.want)
		}
	}
}

func TestDevices_PublicHostIsGuessedAgainOnceItIsEmpty(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	device, _ := p.device(t, admin, admin, types.DeviceKindServer)
	path := "/api/tunnel/devices/" + device.ID.String()
	for _, step := range []struct {
		body, want string
		guessed    bool
	}{
		{`{"server":{"region":"eu"}}`, "panel.example.com", true},
		{`{"server":{"publicHost":"panel.example.com"}}`, "panel.example.com", false},
		{`{"server":{"publicHost":""}}`, "panel.example.com", true}, // It has not called yet.
		{`{"server":{"publicHost":"fra1.example.com"}}`, "fra1.example.com", false},
		{`{"name":"edge"}`, "fra1.example.com", false},
	} {
		got := decode[types.Device](t, admin.send(t, "PATCH", path, step.body), 200).Server.MustGet()
		if got.PublicHost != step.want || got.PublicHostGuessed != step.guessed {
			t.Errorf("%s: the host is %s, guessed %v", step.body, got.PublicHost, got.PublicHostGuessed)
		}
	}
	embedded := "/api/tunnel/devices/" + p.server(t, 20009).ID.String()
	wantError(t, admin.send(t, "PATCH", embedded, `{"server":{"publicHost":""}}`), 409, types.CodeConflict)
}

func TestDevices_SayWhatKeepsPlayersFromATunnelServer(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	device, _ := p.device(t, admin, admin, types.DeviceKindServer)
	path := "/api/tunnel/devices/" + device.ID.String()
	for _, step := range []struct {
		host, resolved string
		missing        bool
		want           []string
		warns          string
	}{
		{"203.0.113.7", "", false, []string{"203.0.113.7"}, ""},
		{"2001:db8::7", "", false, []string{"2001:db8::7"}, "players without IPv6"},
		{"fra1.example.com", "", false, []string{}, ""},
		{"fra2.example.com", "203.0.113.7 2001:db8::7", false, []string{"203.0.113.7", "2001:db8::7"}, ""},
		{"fra3.example.com", "2001:db8::7", false, []string{"2001:db8::7"}, "players without IPv6"},
		{"fra4.example.com", "", true, []string{}, "has not existed since"},
	} {
		decode[types.Device](t, admin.send(t, "PATCH", path, map[string]any{"server": map[string]any{"publicHost": step.host}}), 200)
		if step.resolved != "" {
			if err := p.db.SaveAddresses(t.Context(), device.ID, step.host, db.Addresses(step.resolved)); err != nil {
				t.Fatal(err)
			}
		}
		if step.missing {
			if err := p.db.SaveUnresolved(t.Context(), device.ID, step.host); err != nil {
				t.Fatal(err)
			}
		}
		got := decode[types.Device](t, admin.send(t, "GET", path, nil), 200).Server.MustGet()
		warning, err := got.PublicHostWarning.Get()
		if !reflect.DeepEqual(got.PublicAddresses, step.want) || (err == nil) != (step.warns != "") || !strings.Contains(warning, step.warns) {
			t.Errorf("%s has the addresses %v and the warning %q", step.host, got.PublicAddresses, warning)
		}
	}
}

func TestDevices_TunnelServerSettingsAreForAdmins(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	started := decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"edge","kind":"server"}`), 200)
	approval := map[string]any{"userCode": started.UserCode, "ownerId": ada.user.ID}
	edge := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", approval), 200).Device
	path := "/api/tunnel/devices/" + edge.ID.String()
	const settings = `{"server":{"publicHost":"2001:db8::1","portRange":{"first":30000,"last":30009},"region":"eu"}}`
	wantError(t, ada.send(t, "PATCH", path, settings), 403, types.CodeForbidden)
	got := decode[types.Device](t, admin.send(t, "PATCH", path, settings), 200).Server.MustGet()
	want := types.TunnelServer{
		PublicHost: "2001:db8::1", PublicAddresses: []string{"2001:db8::1"},
		PublicHostWarning: nullable.NewNullableWithValue("players without IPv6 cannot join at 2001:db8::1; set an IPv4 address, or a name that has one, as the public host"),

		PortRange: types.PortRange{First: 30000, Last: 30009}, Region: "eu",
		State: types.ServerActive, Players: nullable.NewNullNullable[int](), DrainUntil: nullable.NewNullNullable[time.Time](),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("set to %+v, want %+v", got, want)
	}
	want.Region = ""
	changed := decode[types.Device](t, admin.send(t, "PATCH", path, `{"name":"fra","server":{"region":""}}`), 200)
	if changed.Name != "fra" || !reflect.DeepEqual(changed.Server.MustGet(), want) {
		t.Errorf("changed to %+v", changed)
	}
	if renamed := decode[types.Device](t, ada.send(t, "PATCH", path, `{"name":"edge"}`), 200); !reflect.DeepEqual(renamed.Server.MustGet(), want) {
		t.Errorf("renamed to %+v", renamed)
	}

	for field, body := range map[string]string{
		"server.publicHost":     `{"server":{"publicHost":"play.example.com:25565"}}`,
		"server.portRange":      `{"server":{"portRange":{"first":2,"last":1}}}`,
		"server.portRange.last": `{"server":{"portRange":{"first":2}}}`,
		"server.relayPort":      `{"server":{"relayPort":2}}`,
		"server":                `{"server":{}}`,
		"body":                  `{}`,
	} {
		wantField(t, admin.send(t, "PATCH", path, body), field)
	}
	wantField(t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"x","kind":"server","server":{"publicHost":"a:1"}}`), "server.publicHost")
	wantField(t, admin.send(t, "POST", "/api/tunnel/device/start", `{"name":"x","server":{"region":"eu"}}`), "server")

	client, _ := p.device(t, ada, admin, types.DeviceKindClient)
	wantError(t, admin.send(t, "PATCH", "/api/tunnel/devices/"+client.ID.String(), `{"server":{"region":"eu"}}`), 409, types.CodeConflict)
	embedded := "/api/tunnel/devices/" + p.server(t, 20009).ID.String()
	wantError(t, admin.send(t, "PATCH", embedded, `{"server":{"publicHost":"x"}}`), 409, types.CodeConflict)
	decode[types.Device](t, admin.send(t, "PATCH", embedded, `{"server":{"region":"eu"}}`), 200)
	wantError(t, admin.send(t, "PATCH", "/api/tunnel/devices/"+uuid.NewString(), settings), 404, types.CodeNotFound)
}

func TestDevices_RejectBlankNames(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	device, _ := p.device(t, admin, admin, types.DeviceKindClient)
	pending := decode[types.Enrollment](t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", `{"name":"rig"}`), 200)
	for _, blank := range []string{"\u00a0", "\v", "\u3000 \u2003"} {
		wantField(t, p.anonymous().send(t, "POST", "/api/tunnel/device/start", map[string]any{"name": blank}), "name")
		wantField(t, admin.send(t, "PATCH", "/api/tunnel/devices/"+device.ID.String(), map[string]any{"name": blank}), "name")
		wantField(t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": pending.UserCode, "name": blank}), "name")
	}
}

func TestDevices_OldNamesKeepWorking(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	device, _ := p.device(t, admin, admin, types.DeviceKindServer)
	old := "edge\x1b[2J\u202e"
	if _, err := p.db.UpdateDevice(t.Context(), db.Scope{All: true}, device.ID, db.DevicePatch{Name: &old}); err != nil {
		t.Fatal(err)
	}
	path := "/api/tunnel/devices/" + device.ID.String()
	if got := decode[types.Device](t, admin.send(t, "GET", path, nil), 200); got.Name != old {
		t.Errorf("the name is %q", got.Name)
	}
	if got := decode[types.Device](t, admin.send(t, "PATCH", path, `{"server":{"region":"eu"}}`), 200); got.Name != old {
		t.Errorf("a patch of the region makes the name %q", got.Name)
	}
	wantField(t, admin.send(t, "PATCH", path, map[string]any{"name": old}), "name")
	if got := decode[types.Device](t, admin.send(t, "PATCH", path, `{"name":"edge"}`), 200); got.Name != "edge" {
		t.Errorf("renamed to %q", got.Name)
	}
}
