package server_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

var endpoint = types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("0", 64)}

func TestTunnelServers_AnotherHostReachesTheirClientsAtOnce(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) { o.TunnelServer.Disabled = true })
	admin, host := p.Admin(), "fra1.example.com"
	edge := p.EnrollServer("edge", &types.TunnelServerSettings{PublicHost: &host})
	channel := p.ConnectServer(edge, endpoint)
	controltest.Next[types.ServerSnapshot](channel)
	device := p.Enroll("gaming-rig")
	allocate(t, admin, device, types.CreateTCP)
	agent := p.Connect(device)
	before := controltest.Next[types.ClientSnapshot](agent)
	if len(before.Servers) != 1 || before.Servers[0].Address != "fra1.example.com:7443" {
		t.Fatalf("servers %+v", before.Servers)
	}

	host = "fra2.example.com"
	patch := types.DevicePatch{Server: &types.TunnelServerSettings{PublicHost: &host}}
	if resp, err := admin.UpdateDeviceWithResponse(t.Context(), edge.ID, patch); err != nil || resp.JSON200 == nil {
		t.Fatalf("%v %s", err, resp.Body)
	}
	change := controltest.Next[types.ClientChange](agent)
	if len(change.Servers) != 1 || change.Servers[0].Address != "fra2.example.com:7443" ||
		len(change.Allocations) != 1 || !strings.HasPrefix(change.Allocations[0].PublicAddress, "fra2.example.com:") {
		t.Errorf("change %+v", change)
	}
}

func TestTunnelServers_AGuessedHostFollowsThem(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) {
		o.TunnelServer.Disabled = true
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	edge, device := p.EnrollServer("edge", nil), p.Enroll("gaming-rig")
	controltest.Next[types.ServerSnapshot](p.ConnectServer(edge, endpoint)) // From the panel's machine.
	allocate(t, p.Admin(), device, types.CreateUDP)
	agent := p.Connect(device)
	before := controltest.Next[types.ClientSnapshot](agent)
	if len(before.Servers) != 1 || before.Servers[0].Address != "127.0.0.1:7443" {
		t.Fatalf("servers %+v", before.Servers)
	}

	ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(p.URL, "http")+"/api/tunnel/ws",
		http.Header{"Authorization": {"Bearer " + edge.Token}, "X-Forwarded-For": {"2001:db8::7"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	channel := controltest.NewPeer(t, ws)
	channel.Hello(&endpoint)
	host := controltest.Next[types.ServerSnapshot](channel).Host
	if host == nil || host.PublicHost != "127.0.0.1" || !host.PublicHostGuessed || host.PublicHostWarning != nil {
		t.Errorf("its host is %+v", host)
	}
	host = controltest.Next[types.ServerChange](channel).Host
	if host == nil || host.PublicHost != "2001:db8::7" || !host.PublicHostGuessed || host.PublicHostWarning == nil {
		t.Errorf("its host became %+v", host)
	}
	change := controltest.Next[types.ClientChange](agent)
	if len(change.Servers) != 1 || change.Servers[0].Address != "[2001:db8::7]:7443" || len(*change.Servers[0].PublicAddresses) != 1 ||
		len(change.Allocations) != 1 || !strings.HasPrefix(change.Allocations[0].PublicAddress, "[2001:db8::7]:") {
		t.Errorf("change %+v", change)
	}
}
