package server_test

import (
	"strings"
	"testing"

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
