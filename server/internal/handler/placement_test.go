package handler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// edge creates a second tunnel server that is online.
func (p *panel) edge(t *testing.T) db.Device {
	t.Helper()
	server, err := p.db.EnsureEmbeddedServer(t.Context(), db.EmbeddedServer{
		Name: "edge", PublicHost: "edge.example.com", PortFirst: 30000, PortLast: 30009,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.connect(t, server.ID)
	return server
}

func TestDevices_DrainAndBack(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	server := p.server(t, 20009)
	client, agent := p.device(t, ada, admin, types.DeviceKindClient)
	p.connect(t, client.ID)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(client)), 201)
	path := "/api/tunnel/devices/" + server.ID.String()
	state := func(a answer) types.TunnelServer { return decode[types.Device](t, a, 200).Server.MustGet() }
	if got := state(admin.send(t, "GET", path, nil)); got.State != types.ServerActive || !got.Players.IsNull() || !got.DrainUntil.IsNull() {
		t.Errorf("at first: %+v", got)
	}

	if got := state(admin.send(t, "PATCH", path, `{"server":{"cordoned":true}}`)); got.State != types.ServerCordoned {
		t.Errorf("cordoned: %+v", got)
	}
	wantError(t, agent.send(t, "POST", allocations, newAllocation(client)), 503, types.CodeNoTunnelServer)
	wantError(t, admin.send(t, "POST", allocations, newAllocation(client)), 503, types.CodeNoTunnelServer)
	wantError(t, agent.send(t, "POST", allocations, newAllocation(client, "serverId", server.ID)), 409, types.CodeConflict)
	decode[types.AllocationCreated](t, admin.send(t, "POST", allocations, newAllocation(client, "serverId", server.ID)), 201)
	wantError(t, agent.send(t, "POST", allocations, newAllocation(client, "serverId", uuid.New())), 404, types.CodeNotFound)

	before := time.Now()
	got := state(admin.send(t, "POST", path+"/drain", `{"timeoutSeconds":600}`))
	if until, err := got.DrainUntil.Get(); got.State != types.ServerDraining || err != nil || until.Before(before.Add(9*time.Minute)) || until.After(time.Now().Add(11*time.Minute)) {
		t.Errorf("draining: %+v", got)
	}
	load := decode[[]types.TunnelServerLoad](t, admin.send(t, "GET", "/api/admin/tunnel-servers/load", nil), 200)
	if drain := load[0].Drain.MustGet(); len(load) != 1 || load[0].DeviceID != server.ID || load[0].Clients != 1 ||
		drain.Move || drain.Allocations != 2 || drain.Remaining != 2 || !drain.Until.Equal(got.DrainUntil.MustGet()) {
		t.Errorf("its load: %+v", load)
	}
	wantError(t, admin.send(t, "POST", allocations, newAllocation(client, "serverId", server.ID)), 409, types.CodeConflict)
	one := fmt.Sprintf("%s/%d", allocations, made.ID)
	if a := decode[types.Allocation](t, agent.send(t, "GET", one, nil), 200); a.Status != types.AllocationDraining || a.StatusReason.IsNull() {
		t.Errorf("its allocation: %+v", a)
	}
	if err := p.db.SavePlayers(t.Context(), server.ID, 4); err != nil {
		t.Fatal(err)
	}
	if got := state(admin.send(t, "POST", path+"/drain", `{}`)); got.State != types.ServerDraining || got.Players.MustGet() != 4 || !got.DrainUntil.MustGet().After(before.Add(50*time.Minute)) {
		t.Errorf("with another limit: %+v", got)
	}
	if got := state(admin.send(t, "PATCH", path, `{"server":{"cordoned":false}}`)); got.State != types.ServerActive || !got.DrainUntil.IsNull() {
		t.Errorf("back in service: %+v", got)
	}
	if a := decode[types.Allocation](t, agent.send(t, "GET", one, nil), 200); a.Status != types.AllocationPending {
		t.Errorf("its allocation: %+v", a)
	}

	wantError(t, ada.send(t, "POST", path+"/drain", `{}`), 404, types.CodeNotFound)
	mine := "/api/tunnel/devices/" + client.ID.String()
	wantError(t, ada.send(t, "POST", mine+"/drain", `{}`), 403, types.CodeForbidden)
	wantError(t, admin.send(t, "POST", mine+"/drain", `{}`), 409, types.CodeConflict)
	wantError(t, p.anonymous().send(t, "POST", path+"/drain", `{}`), 401, types.CodeUnauthorized)
	wantField(t, admin.send(t, "POST", path+"/drain", `{"timeoutSeconds":-1}`), "timeoutSeconds")
	wantField(t, admin.send(t, "POST", path+"/drain", `{"force":true}`), "force")
}

func TestDevices_TunnelServerMayEnrollCordoned(t *testing.T) {
	p := newPanel(t)
	admin := p.user(t, "root@example.com", "admin")
	started := decode[types.Enrollment](t, admin.send(t, "POST", "/api/tunnel/device/start",
		`{"name":"edge","kind":"server","server":{"cordoned":true}}`), 200)
	edge := decode[types.DeviceApproved](t, admin.send(t, "POST", "/api/tunnel/device/approve", map[string]any{"userCode": started.UserCode}), 200).Device
	if got := edge.Server.MustGet(); got.State != types.ServerCordoned {
		t.Errorf("got %+v", got)
	}
}

func TestAllocations_MoveToAnotherTunnelServer(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	server := p.server(t, 20009)
	client, agent := p.device(t, ada, admin, types.DeviceKindClient)
	p.connect(t, client.ID)
	made := decode[types.AllocationCreated](t, agent.send(t, "POST", allocations, newAllocation(client, "protocol", "tcp+udp")), 201)
	edge := p.edge(t)
	path := func(a types.Allocation) string { return fmt.Sprintf("%s/%d", allocations, a.ID) }
	tcp, udp := made.Allocations[0], made.Allocations[1]

	moved := decode[types.Allocation](t, agent.send(t, "PATCH", path(udp), map[string]any{"serverId": edge.ID, "drainSeconds": 60, "name": "moved"}), 200)
	if moved.ServerID != edge.ID || moved.Port != made.Port || moved.PublicHost != "edge.example.com" || moved.Name != "moved" || moved.Status != types.AllocationPending {
		t.Errorf("moved to %+v", moved)
	}
	if other := decode[types.Allocation](t, agent.send(t, "GET", path(tcp), nil), 200); other.ServerID != edge.ID || other.Port != made.Port {
		t.Errorf("the other protocol is at %+v", other)
	}
	if list := decode[[]types.Allocation](t, ada.send(t, "GET", allocations, nil), 200); len(list) != 2 {
		t.Errorf("listed %+v", list)
	}
	back := decode[types.Allocation](t, ada.send(t, "PATCH", path(tcp), map[string]any{"serverId": server.ID, "port": 20005}), 200)
	if back.ServerID != server.ID || back.Port != 20005 {
		t.Errorf("back at %+v", back)
	}
	// A move to the current tunnel server does nothing.
	decode[types.Allocation](t, ada.send(t, "PATCH", path(tcp), map[string]any{"serverId": server.ID}), 200)

	wantField(t, agent.send(t, "PATCH", path(tcp), `{"drainSeconds":5}`), "drainSeconds")
	wantError(t, agent.send(t, "PATCH", path(tcp), map[string]any{"serverId": uuid.New()}), 404, types.CodeNotFound)
	wantError(t, agent.send(t, "PATCH", path(tcp), map[string]any{"serverId": edge.ID, "port": 80}), 403, types.CodeForbidden)
	cordoned := true
	if _, err := p.db.UpdateDevice(t.Context(), db.Scope{All: true}, edge.ID, db.DevicePatch{Cordoned: &cordoned}); err != nil {
		t.Fatal(err)
	}
	wantError(t, agent.send(t, "PATCH", path(tcp), map[string]any{"serverId": edge.ID}), 409, types.CodeConflict)
	decode[types.Allocation](t, admin.send(t, "PATCH", path(tcp), map[string]any{"serverId": edge.ID}), 200)
}
