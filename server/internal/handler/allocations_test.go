package handler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const allocations = "/api/tunnel/allocations"

// newAllocation returns a request for an allocation: TCP to port 25565 of a device, with changes.
func newAllocation(device types.Device, changes ...any) map[string]any {
	body := map[string]any{"deviceId": device.ID, "protocol": "tcp", "localPort": 25565}
	for i := 0; i+1 < len(changes); i += 2 {
		name, _ := changes[i].(string)
		if changes[i+1] == nil {
			delete(body, name)
			continue
		}
		body[name] = changes[i+1]
	}
	return body
}

func TestAllocations_CreateGivesDefaultsAndThePublicAddress(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	server := p.server(t, 20999)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device)), 201)
	if made.Port < 20000 || made.Port > 20999 || made.DeviceID != device.ID || made.ServerID != server.ID || made.LocalHost != "127.0.0.1" || made.LocalPort != 25565 || made.Name != "" {
		t.Errorf("made %+v", made)
	}
	if made.PublicAddress != fmt.Sprintf("play.example.com:%d", made.Port) || made.PublicHost != "play.example.com" {
		t.Errorf("public address is %s", made.PublicAddress)
	}
	if *made.Options.ProxyProtocol != types.ProxyProtocolNone || *made.Options.UDPIdleSeconds != 60 || !*made.Options.PlayerAddresses {
		t.Errorf("options are %v, %v, %v", *made.Options.ProxyProtocol, *made.Options.UDPIdleSeconds, *made.Options.PlayerAddresses)
	}
	if len(made.Allocations) != 1 || made.Allocations[0].ID != made.ID {
		t.Errorf("allocations are %+v", made.Allocations)
	}
	for _, who := range []caller{ada, admin, agent} {
		got := decode[types.Allocation](t, who.send(t, "GET", fmt.Sprintf("%s/%d", allocations, made.ID), nil), 200)
		if got.ID != made.ID || got.Port != made.Port {
			t.Errorf("got %+v", got)
		}
		if list := decode[[]types.Allocation](t, who.send(t, "GET", allocations, nil), 200); len(list) != 1 {
			t.Errorf("listed %+v", list)
		}
	}
}

func TestAllocations_BothProtocolsShareThePort(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations,
		newAllocation(device, "deviceId", nil, "protocol", "tcp+udp", "port", 25565, "localHost", "192.168.1.5", "name", "bedrock",
			"options", map[string]any{"proxyProtocol": "v2", "udpIdleSeconds": 5, "playerAddresses": false})), 201)
	if len(made.Allocations) != 2 || made.Allocations[0].Protocol != types.ProtocolTCP || made.Allocations[1].Protocol != types.ProtocolUDP {
		t.Fatalf("made %+v", made.Allocations)
	}
	for _, one := range made.Allocations {
		if one.Port != 25565 || one.LocalHost != "192.168.1.5" || one.Name != "bedrock" || *one.Options.ProxyProtocol != types.ProxyProtocolV2 || *one.Options.UDPIdleSeconds != 5 || *one.Options.PlayerAddresses {
			t.Errorf("made %+v", one)
		}
	}
	wantError(t, agent.send(t, "POST", allocations, newAllocation(device, "protocol", "udp", "port", 25565)), 409, types.CodePortTaken)
}

func TestAllocations_CreateReportsEachError(t *testing.T) {
	p := newPanel(t)
	admin, ada, bob := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "bob@example.com", "user")
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	other, _ := p.device(t, bob, admin, types.DeviceKindClient)
	edge, _ := p.device(t, admin, admin, types.DeviceKindServer)

	a := ada.send(t, "POST", allocations, newAllocation(device))
	wantError(t, a, 503, types.CodeNoTunnelServer)
	server := p.server(t, 20000)

	wantError(t, p.anonymous().send(t, "POST", allocations, newAllocation(device)), 401, types.CodeUnauthorized)
	wantField(t, ada.send(t, "POST", allocations, newAllocation(device, "deviceId", nil)), "deviceId")
	wantError(t, ada.send(t, "POST", allocations, newAllocation(other)), 404, types.CodeNotFound)
	wantError(t, agent.send(t, "POST", allocations, newAllocation(other)), 404, types.CodeNotFound)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", uuid.New())), 404, types.CodeNotFound)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", other.ID)), 404, types.CodeNotFound)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "port", 1023)), 403, types.CodeForbidden)
	wantError(t, agent.send(t, "POST", allocations, newAllocation(device, "port", 80)), 403, types.CodeForbidden)
	wantError(t, admin.send(t, "POST", allocations, newAllocation(edge)), 409, types.CodeConflict)
	for _, protocol := range []string{"udp", "tcp+udp"} {
		wantField(t, ada.send(t, "POST", allocations, newAllocation(device, "protocol", protocol, "options", map[string]any{"proxyProtocol": "v1"})), "options.proxyProtocol")
	}
	wantField(t, ada.send(t, "POST", allocations, newAllocation(device, "localPort", "x")), "localPort")
	wantField(t, ada.send(t, "POST", allocations, newAllocation(device, "localHost", "a b")), "localHost")

	decode[types.Enrollment](t, ada.send(t, "POST", "/api/tunnel/device/start", `{"name":"x"}`), 200)
	pending := decode[[]types.Device](t, ada.send(t, "GET", "/api/tunnel/devices?limit=1", nil), 200)[0]
	wantError(t, ada.send(t, "POST", allocations, newAllocation(pending)), 409, types.CodeConflict)

	decode[types.AllocationCreated](t, admin.send(t, "POST", allocations, newAllocation(device, "port", 1023, "serverId", server.ID)), 201)
	decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", server.ID)), 201)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "serverId", server.ID)), 503, types.CodeNoPortsAvailable)
	wantError(t, ada.send(t, "POST", allocations, newAllocation(device, "port", 20000)), 409, types.CodePortTaken)
}

func TestAllocations_PatchChangesOnlyPresentFields(t *testing.T) {
	p := newPanel(t)
	admin, ada, bob := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "bob@example.com", "user")
	p.server(t, 20999)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "protocol", "udp", "port", 20005, "name", "old")), 201)
	taken := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "protocol", "udp")), 201)
	path := fmt.Sprintf("%s/%d", allocations, made.ID)

	got := decode[types.Allocation](t, agent.send(t, "PATCH", path, `{"localHost":"localhost","localPort":2456}`), 200)
	if got.LocalHost != "localhost" || got.LocalPort != 2456 || got.Name != "old" || got.Port != 20005 {
		t.Errorf("patched %+v", got)
	}
	got = decode[types.Allocation](t, ada.send(t, "PATCH", path, `{"name":"new","port":20006,"options":{"proxyProtocol":"v2","udpIdleSeconds":30,"playerAddresses":false}}`), 200)
	if got.Name != "new" || got.Port != 20006 || *got.Options.ProxyProtocol != types.ProxyProtocolV2 || *got.Options.UDPIdleSeconds != 30 || *got.Options.PlayerAddresses {
		t.Errorf("patched %+v", got)
	}
	wantField(t, ada.send(t, "PATCH", path, `{"options":{"proxyProtocol":"v1"}}`), "options.proxyProtocol")
	wantField(t, ada.send(t, "PATCH", path, `{"protocol":"tcp"}`), "protocol")
	wantError(t, ada.send(t, "PATCH", path, `{}`), 400, types.CodeInvalidRequest)
	wantError(t, ada.send(t, "PATCH", path, `{"port":80}`), 403, types.CodeForbidden)
	wantError(t, ada.send(t, "PATCH", path, map[string]any{"port": taken.Port}), 409, types.CodePortTaken)
	wantError(t, bob.send(t, "PATCH", path, `{"name":"mine"}`), 404, types.CodeNotFound)
	decode[types.Allocation](t, admin.send(t, "PATCH", path, `{"port":80}`), 200)
	decode[types.Allocation](t, ada.send(t, "PATCH", path, `{"port":80,"name":"an admin gave it"}`), 200)
}

func TestAllocations_DeleteFreesThePort(t *testing.T) {
	p := newPanel(t)
	admin, ada, bob := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "bob@example.com", "user")
	p.server(t, 20000)
	device, agent := p.device(t, ada, admin, types.DeviceKindClient)
	for _, who := range []caller{ada, agent, admin} {
		made := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device)), 201)
		path := fmt.Sprintf("%s/%d", allocations, made.ID)
		wantError(t, bob.send(t, "DELETE", path, nil), 404, types.CodeNotFound)
		if done := decode[types.Success](t, who.send(t, "DELETE", path, nil), 200); !done.Success {
			t.Errorf("deleted %+v", done)
		}
		wantError(t, who.send(t, "DELETE", path, nil), 404, types.CodeNotFound)
		wantError(t, who.send(t, "GET", path, nil), 404, types.CodeNotFound)
	}
}

func TestAllocations_PageThroughWithLinks(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	for range 3 {
		decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device)), 201)
	}
	first := agent.send(t, "GET", allocations+"?limit=2", nil)
	newest := decode[[]types.Allocation](t, first, 200)
	match := nextLink.FindStringSubmatch(first.header.Get("Link"))
	if len(newest) != 2 || newest[0].ID < newest[1].ID || match == nil {
		t.Fatalf("%d allocations, Link %q", len(newest), first.header.Get("Link"))
	}
	second := agent.send(t, "GET", match[1], nil)
	if rest := decode[[]types.Allocation](t, second, 200); len(rest) != 1 || rest[0].ID > newest[1].ID || second.header.Get("Link") != "" {
		t.Errorf("then %+v, Link %q", rest, second.header.Get("Link"))
	}
}

func TestAllocations_StatusFollowsTheReportsOfBothEnds(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	server := p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device)), 201)
	report := func(id uuid.UUID, kind, state, reason string) {
		t.Helper()
		if err := p.db.SaveReports(t.Context(), id, kind, []db.Report{{AllocationID: made.ID, State: state, Reason: reason}}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(status types.AllocationStatus, reason string) {
		t.Helper()
		got := decode[types.Allocation](t, agent.send(t, "GET", fmt.Sprintf("%s/%d", allocations, made.ID), nil), 200)
		gotReason, _ := got.StatusReason.Get()
		if got.Status != status || gotReason != reason || got.StatusReason.IsNull() != (reason == "") {
			t.Errorf("status is %s, %q; want %s, %q", got.Status, gotReason, status, reason)
		}
	}
	want(types.AllocationOffline, "the device is not connected")
	generation := p.connect(t, device.ID)
	want(types.AllocationPending, "the tunnel server has not opened the port yet")
	report(server.ID, db.KindServer, db.StateReady, "")
	want(types.AllocationPending, "the device has not linked to the tunnel server yet")
	report(device.ID, db.KindClient, db.StateReady, "")
	want(types.AllocationListening, "")
	report(device.ID, db.KindClient, db.StateFailed, "192.168.1.5 is not permitted")
	want(types.AllocationFailed, "192.168.1.5 is not permitted")
	report(server.ID, db.KindServer, db.StateFailed, "address already in use")
	want(types.AllocationFailed, "address already in use")
	report(server.ID, db.KindServer, db.StateReady, "")
	if err := p.db.Disconnect(t.Context(), device.ID, generation, ""); err != nil {
		t.Fatal(err)
	}
	want(types.AllocationOffline, "the device is not connected")
	if err := p.db.ReconcilePresence(t.Context(), p.replica, func() []uuid.UUID { return nil }); err != nil {
		t.Fatal(err)
	}
	want(types.AllocationOffline, "the tunnel server is not connected")
}

func TestAllocations_TargetIsWhatTheConnectedAgentReports(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	p.server(t, 20999)
	device, agent := p.device(t, admin, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(device)), 201)
	if made.Target != types.TargetUnknown || made.TargetReason != nil {
		t.Errorf("a new allocation has the target %s, %v", made.Target, made.TargetReason)
	}
	at := fmt.Sprintf("%s/%d", allocations, made.ID)
	report := func(target, reason string) {
		t.Helper()
		reports := []db.Report{{AllocationID: made.ID, State: db.StateReady, Target: target, TargetReason: reason}}
		if err := p.db.SaveReports(t.Context(), device.ID, db.KindClient, reports); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, target types.TargetState, reason string) {
		t.Helper()
		got := decode[types.Allocation](t, agent.send(t, "GET", at, nil), 200)
		if got.Target != target || (got.TargetReason != nil) != (target == types.TargetDown) || got.TargetReason != nil && *got.TargetReason != reason {
			t.Errorf("%s: the target is %s, %v; want %s, %q", what, got.Target, got.TargetReason, target, reason)
		}
	}
	const why = "nothing listens on 127.0.0.1:25565: start the game"
	generation := p.connect(t, device.ID)
	want("before a report", types.TargetUnknown, "")
	report("", "")
	want("an agent that does not know of targets", types.TargetUnknown, "")
	report(db.TargetDown, why)
	want("no game", types.TargetDown, why)
	decode[types.Allocation](t, agent.send(t, "PATCH", at, map[string]any{"name": "survival"}), 200)
	want("a new name", types.TargetDown, why)
	decode[types.Allocation](t, agent.send(t, "PATCH", at, map[string]any{"localPort": 25599}), 200)
	want("a new local port", types.TargetUnknown, "")
	report(db.TargetUp, "")
	want("a game", types.TargetUp, "")
	if err := p.db.Disconnect(t.Context(), device.ID, generation, ""); err != nil {
		t.Fatal(err)
	}
	want("an agent that is offline", types.TargetUnknown, "")
	p.connect(t, device.ID)
	want("an agent that has restarted", types.TargetUnknown, "")
}

// A port below 1024 that an admin granted on one tunnel server is not granted on another.
func TestAllocations_MoveToAPrivilegedPortNeedsAnAdmin(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20009)
	client, agent := p.device(t, ada, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, admin.send(t, "POST", allocations, newAllocation(client, "port", 443)), 201)
	edge := p.edge(t)
	path := fmt.Sprintf("%s/%d", allocations, made.ID)
	wantError(t, agent.send(t, "PATCH", path, map[string]any{"serverId": edge.ID, "port": 443}), 403, types.CodeForbidden)
}

func TestAllocations_TargetThatLeadsBackIsRefused(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	p.server(t, 20999)
	device, _ := p.device(t, ada, admin, types.DeviceKindClient)
	refused := func(a answer) {
		t.Helper()
		if body := decode[types.Problem](t, a, 409); body.Error != types.CodeConflict || !strings.Contains(body.Message, "own public port") {
			t.Errorf("refused with %+v", body)
		}
	}
	for _, protocol := range []string{"tcp", "udp", "tcp+udp"} {
		refused(ada.send(t, "POST", allocations, newAllocation(device,
			"protocol", protocol, "port", 20100, "localHost", "PLAY.example.com", "localPort", 20100)))
	}
	made := decode[types.AllocationCreated](t, ada.send(t, "POST", allocations, newAllocation(device, "port", 20100)), 201)
	refused(ada.send(t, "PATCH", fmt.Sprintf("%s/%d", allocations, made.ID),
		map[string]any{"localHost": "play.example.com", "localPort": 20100}))
	if list := decode[[]types.Allocation](t, ada.send(t, "GET", allocations, nil), 200); len(list) != 1 || list[0].LocalPort != 25565 {
		t.Errorf("left %+v", list)
	}
}

func TestAllocations_HaveTheAddressesOfTheirHost(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	server := p.server(t, 20009)
	_, agent := p.device(t, admin, admin, types.DeviceKindClient)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", "/api/tunnel/allocations", `{"protocol":"tcp+udp","localPort":19132}`), 201)
	if len(made.PublicAddresses) != 0 {
		t.Errorf("a name that was not looked up has the addresses %v", made.PublicAddresses)
	}
	want := []string{"203.0.113.7", "2001:db8::7"}
	if err := p.db.SaveAddresses(t.Context(), server.ID, "play.example.com", db.JoinAddresses(want)); err != nil {
		t.Fatal(err)
	}
	listed := decode[[]types.Allocation](t, agent.send(t, "GET", "/api/tunnel/allocations", nil), 200)
	again := decode[types.AllocationCreated](t, agent.send(t, "POST", "/api/tunnel/allocations", `{"protocol":"tcp","localPort":1}`), 201)
	for _, a := range append(listed, again.Allocations...) {
		if !slices.Equal(a.PublicAddresses, want) || a.PublicHost != "play.example.com" {
			t.Errorf("%s port %d has the addresses %v", a.Protocol, a.Port, a.PublicAddresses)
		}
	}
	if len(listed) != 2 || !slices.Equal(again.PublicAddresses, want) {
		t.Errorf("listed %+v, created %+v", listed, again)
	}
}
