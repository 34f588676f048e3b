package server_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// on makes a panel run on a machine of that name.
func on(hostName string, log *testlog.Buffer) func(*server.Options) {
	return func(o *server.Options) {
		o.TunnelServer.Name, o.TunnelServer.HostName = "", hostName
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
}

func TestTunnelServer_KeepsItsPortsWhenTheMachineIsRenamed(t *testing.T) {
	url, dir := dbtest.URL(t), dataDir(t)
	for name, database := range map[string]server.Database{
		"the panel's own database": {DataDir: dir},
		"one with a URL":           {URL: url},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			same := func(o *server.Options) { o.Database = database }
			before := servertest.Start(t, same, on("old", &log))
			first := embedded(t, before.Admin())
			before.Stop()
			unused := servertest.Start(t, same, on("new", &log)) // Without ports it is the same device too.
			if now := embedded(t, unused.Admin()); now.ID != first.ID {
				t.Errorf("it was %s and is %s", first.ID, now.ID)
			}
			created := allocate(t, unused.Admin(), unused.Enroll("gaming-rig"), types.CreateTCP)
			unused.Stop()

			for _, hostName := range []string{"newer", "old", "newest"} {
				p := servertest.Start(t, same, on(hostName, &log))
				if now := embedded(t, p.Admin()); now.ID != first.ID {
					t.Errorf("on %s: it was %s and is %s", hostName, first.ID, now.ID)
				}
				got, err := p.Admin().GetAllocationWithResponse(t.Context(), created.ID)
				if err != nil || got.JSON200 == nil || got.JSON200.Port != created.Port || got.JSON200.ServerID != first.ID {
					t.Errorf("on %s: %v %s", hostName, err, got.Body)
				}
				p.Stop()
			}
			if strings.Contains(log.String(), "lostName") {
				t.Error("it says that a tunnel server is lost")
			}
		})
	}
}

func TestTunnelServer_SaysWhichNameIsLostWithItsPorts(t *testing.T) {
	url := dbtest.URL(t)
	var log testlog.Buffer
	same := func(o *server.Options) { o.Database.URL = url }
	staying := servertest.Start(t, same, on("a", &log))
	leaving := servertest.Start(t, same, on("b", &log))
	server := func(p *servertest.Panel, name string) uuid.UUID {
		t.Helper()
		resp, err := p.Admin().ListDevicesWithResponse(t.Context(), nil)
		if err != nil || resp.JSON200 == nil {
			t.Fatalf("%v %s", err, resp.Body)
		}
		for _, device := range *resp.JSON200 {
			if device.Name == name && device.Online {
				return device.ID
			}
		}
		t.Fatalf("%s is not online", name)
		return uuid.Nil
	}
	if server(staying, "a") == server(leaving, "b") {
		t.Fatal("two panels share a tunnel server")
	}
	lost := server(leaving, "b")
	device := leaving.Enroll("gaming-rig")
	resp, err := leaving.Admin().CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device.ID, Protocol: types.CreateTCP, LocalPort: 25565, ServerID: &lost,
	})
	if err != nil || resp.JSON201 == nil {
		t.Fatalf("%v %s", err, resp.Body)
	}
	leaving.Stop()
	// It was killed rather than stopped: its lease goes on for a moment.
	if _, err := dbtest.SQL(t, dbtest.Open(t, url)).ExecContext(t.Context(),
		`WITH killed AS (INSERT INTO replicas (id, renewed_at, lease_expires_at)
			VALUES (gen_random_uuid(), now(), now() + interval '8 seconds') RETURNING id)
		UPDATE devices SET replica_id = killed.id FROM killed WHERE embedded_name = 'b'`); err != nil {
		t.Fatal(err)
	}

	// It may belong to a third panel, so the renamed one does not take it.
	renamed := servertest.Start(t, same, on("c", &log))
	if server(renamed, "c") == lost {
		t.Error("a panel took the tunnel server of another")
	}
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "--tunnel-server-name") || !strings.Contains(got, "lostName=b") {
		t.Errorf("log: %s", got)
	}
	renamed.Stop()
	back := servertest.Start(t, same, on("c", &log), named("b"))
	if server(back, "b") != lost {
		t.Error("its name does not bring it back")
	}
}

func named(name string) func(*server.Options) {
	return func(o *server.Options) { o.TunnelServer.Name = name }
}
