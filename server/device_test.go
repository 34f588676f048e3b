package server_test

import (
	"log/slog"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestCreateDevice_ServesARunningPanelUntilItIsDeleted(t *testing.T) {
	url, dir := dbtest.URL(t), dataDir(t)
	for name, database := range map[string]server.Database{
		"the panel's own database": {DataDir: dir},
		"one with a URL":           {URL: url},
	} {
		t.Run(name, func(t *testing.T) {
			p := servertest.Start(t, func(o *server.Options) { o.Database, o.TunnelServer.Disabled = database, true })
			created, err := server.CreateDevice(t.Context(), database, server.NewDevice{
				Name: "edge-1", Kind: "server", PublicHost: "edge-1.example.com",
			}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			edge := p.ConnectServer(servertest.Device{ID: created.ID, Token: created.Token}, relayEndpoint(7443))
			controltest.Next[types.ServerSnapshot](edge)
			allocation := allocate(t, p.Admin(), p.Enroll("gaming-rig"), types.CreateTCP)
			if allocation.ServerID != created.ID || allocation.PublicHost != "edge-1.example.com" {
				t.Errorf("allocated on %+v", allocation)
			}
			if response, err := p.Admin().DeleteDeviceWithResponse(t.Context(), created.ID); err != nil || response.JSON200 == nil {
				t.Fatalf("delete: %v %s", err, response.Body)
			}
			if code := edge.Closed(controltest.Patience); code != channel.CloseDeleted {
				t.Errorf("closed with %d", code)
			}
		})
	}
}
