package server_test

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// allocate creates an allocation as a caller of the API.
func allocate(t *testing.T, api *client.ClientWithResponses, device servertest.Device, protocol types.AllocationCreateProtocol) types.AllocationCreated {
	t.Helper()
	resp, err := api.CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device.ID, Protocol: protocol, LocalPort: 25565,
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.JSON201 == nil {
		t.Fatalf("allocate: %s", resp.Body)
	}
	return *resp.JSON201
}

// listening waits until the API reports that players can join.
func listening(t *testing.T, api *client.ClientWithResponses, id int64) {
	t.Helper()
	controltest.Eventually(t, "allocation listens", func() bool {
		resp, err := api.GetAllocationWithResponse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return resp.JSON200 != nil && resp.JSON200.Status == types.AllocationListening
	})
}

func ready(channel *controltest.Peer, revision types.Revision, ids ...int64) {
	report := types.StatusReport{Type: types.TypeStatus, Revision: revision}
	for _, id := range ids {
		report.Allocations = append(report.Allocations, types.AllocationReport{ID: id, State: types.ReportReady})
	}
	channel.Send(report)
}

func TestPanel_TakesADeviceFromItsCodeToAPublicPort(t *testing.T) {
	p := servertest.Start(t)
	admin := p.Admin()
	device := p.Enroll("gaming-rig")
	agent := p.Connect(device)
	if got := controltest.Next[types.ClientSnapshot](agent); len(got.Allocations) != 0 {
		t.Fatalf("snapshot %+v", got)
	}

	created := allocate(t, admin, device, types.CreateTCPUDP)
	if len(created.Allocations) != 2 {
		t.Fatalf("created %+v", created)
	}
	var ids []int64
	var servers []types.ClientServer
	var revision types.Revision
	for len(ids) < 2 || len(servers) < 1 {
		change := controltest.Next[types.ClientChange](agent)
		for _, a := range change.Allocations {
			ids = append(ids, a.ID)
		}
		servers = append(servers, change.Servers...)
		revision = change.Revision
	}
	if servers[0].ID != created.ServerID || servers[0].Ticket == "" || len(servers[0].Fingerprint) != 64 {
		t.Errorf("server %+v", servers[0])
	}
	ready(agent, revision, ids...)
	for _, id := range ids {
		listening(t, admin, id)
	}

	if !open(t, created.PublicAddress) {
		t.Fatal("the public port is not open")
	}
	if resp, err := admin.DeleteAllocationWithResponse(t.Context(), created.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	controltest.Eventually(t, "the public port is closed", func() bool { return !open(t, created.PublicAddress) })
}

// open reports whether a port is open. Without an agent's link, the tunnel server
// resets players, which can happen as early as while dialling.
func open(t *testing.T, address string) bool {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

func TestPanel_RestartKeepsEverything(t *testing.T) {
	p := servertest.Start(t)
	session := p.Login()
	device := p.Enroll("gaming-rig")
	created := allocate(t, p.Client(session), device, types.CreateTCP)
	keys := jwks(t, p)
	agent := p.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)

	p.Restart()
	if code := agent.Closed(controltest.Patience); code != channel.CloseRestarting {
		t.Errorf("channel closed with %d", code)
	}
	if again := jwks(t, p); !slices.Equal(again, keys) {
		t.Errorf("keys were %v, are %v", keys, again)
	}
	agent = p.Connect(device) // With the token from before.
	snapshot := controltest.Next[types.ClientSnapshot](agent)
	if len(snapshot.Allocations) != 1 || snapshot.Allocations[0].ID != created.ID {
		t.Fatalf("snapshot %+v", snapshot)
	}
	ready(agent, snapshot.Revision, created.ID)
	listening(t, p.Client(session), created.ID)
	resp, err := p.Client(session).GetAllocationWithResponse(t.Context(), created.ID)
	if err != nil || resp.JSON200 == nil {
		t.Fatalf("%v %s", err, resp.Body)
	}
	if got := *resp.JSON200; got.Port != created.Port || got.ServerID != created.ServerID {
		t.Errorf("was port %d on %s, is %d on %s", created.Port, created.ServerID, got.Port, got.ServerID)
	}
}

func jwks(t *testing.T, p *servertest.Panel) []types.JWK {
	t.Helper()
	resp, err := p.Client("").GetJWKSWithResponse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return resp.JSON200.Keys
}

func TestPanels_OnOneDatabaseShareState(t *testing.T) {
	url := dbtest.URL(t)
	panel := func(name string) *servertest.Panel {
		return servertest.Start(t, func(o *server.Options) {
			o.Database.URL = url
			o.TunnelServer.Name = name
		})
	}
	a, b := panel("a"), panel("b")
	adminOfA, adminOfB := a.Admin(), b.Client(a.Login())
	if !slices.Equal(jwks(t, a), jwks(t, b)) {
		t.Error("they sign with different keys")
	}

	doomed, staying := a.Enroll("doomed"), b.Enroll("staying")
	doomedAgent, stayingAgent := a.Connect(doomed), a.Connect(staying)
	controltest.Next[types.ClientSnapshot](doomedAgent)
	controltest.Next[types.ClientSnapshot](stayingAgent)
	if resp, err := adminOfB.DeleteDeviceWithResponse(t.Context(), doomed.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	if code := doomedAgent.Closed(time.Second); code != channel.CloseDeleted {
		t.Errorf("closed with %d", code)
	}
	allocate(t, adminOfB, staying, types.CreateUDP)
	if got := controltest.Next[types.ClientChange](stayingAgent); len(got.Allocations) != 1 {
		t.Errorf("change %+v", got)
	}

	setTunnels(t, adminOfB, false)
	if code := stayingAgent.Closed(controltest.Patience); code != channel.CloseFeatureOff {
		t.Errorf("closed with %d", code)
	}
	controltest.Eventually(t, "refused while off", func() bool {
		ws, err := a.Dial(t.Context(), staying.Token)
		if err == nil {
			ws.Close()
			return false
		}
		return err.Error() == "503 Service Unavailable: feature_disabled"
	})
	setTunnels(t, adminOfA, true)
	controltest.Eventually(t, "taken while on", func() bool {
		ws, err := b.Dial(t.Context(), staying.Token)
		if err == nil {
			ws.Close()
		}
		return err == nil
	})
}

func setTunnels(t *testing.T, admin *client.ClientWithResponses, on bool) {
	t.Helper()
	var patch types.SettingsPatch
	patch.Features = &struct {
		Tunnels *bool `json:"tunnels,omitempty"`
	}{&on}
	resp, err := admin.UpdateSettingsWithResponse(t.Context(), patch)
	if err != nil || resp.JSON200 == nil {
		t.Fatalf("settings: %v %s", err, resp.Body)
	}
}

func TestPanel_FailsBeforeOpeningTheDatabaseIfItsPortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	panel, err := server.New(server.Options{
		Listen:   taken.Addr().String(),
		Database: server.Database{DataDir: t.TempDir() + "/never-made"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := panel.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestNew_RejectsInvalidOptions(t *testing.T) {
	good := server.Options{Database: server.Database{URL: "postgres://localhost/x"}}
	if _, err := server.New(good); err != nil {
		t.Fatal(err)
	}
	// Allocations get no ports of this machine then.
	elsewhere := good
	elsewhere.TunnelServer.Disabled, elsewhere.Ports = true, server.PortRange{First: 1024, Last: 65535}
	if _, err := server.New(elsewhere); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*server.Options){
		"no database":                 func(o *server.Options) { o.Database = server.Database{} },
		"range backwards":             func(o *server.Options) { o.Ports = server.PortRange{First: 2, Last: 1} },
		"range beyond the last port":  func(o *server.Options) { o.Ports = server.PortRange{First: 1, Last: 65536} },
		"relay port within the range": func(o *server.Options) { o.TunnelServer.Listen = ":" + strconv.Itoa(server.DefaultPortFirst) },
		"listen without a port":       func(o *server.Options) { o.Listen = "127.0.0.1" },
		"bind host is a name":         func(o *server.Options) { o.TunnelServer.BindHost = "example.com" },
		"public host with a port":     func(o *server.Options) { o.PublicHost = "play.example.com:1" },
		"public host in brackets":     func(o *server.Options) { o.PublicHost = "[2001:db8::1]" },
		"malformed database URL":      func(o *server.Options) { o.Database.URL = "postgres://panel:pa/ss:word@localhost/x" },
		"certificate without a key":   func(o *server.Options) { o.TLSCertFile = "cert.pem" },
		"email without a password":    func(o *server.Options) { o.FirstAdmin.Email = "admin@example.com" },
		"short password":              func(o *server.Options) { o.FirstAdmin = server.Account{Email: "admin@example.com", Password: "short"} },
		"no email":                    func(o *server.Options) { o.FirstAdmin = server.Account{Email: "admin", Password: "correct horse"} },
		"SMTP URL of another scheme":  func(o *server.Options) { o.Mail = server.Mail{URL: "http://localhost", From: "a@example.com"} },
		"mail without a sender":       func(o *server.Options) { o.Mail.URL = "smtp://localhost" },
		"sender without a server":     func(o *server.Options) { o.Mail.From = "a@example.com" },
		"long password": func(o *server.Options) {
			o.FirstAdmin = server.Account{Email: "admin@example.com", Password: strings.Repeat("a", 1025)}
		},
		"password that is not text": func(o *server.Options) {
			o.FirstAdmin = server.Account{Email: "admin@example.com", Password: "correct horse \xff"}
		},
		"long email": func(o *server.Options) {
			o.FirstAdmin = server.Account{Email: "admin@" + strings.Repeat("a", 250) + ".com", Password: "correct horse"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := good
			change(&opts)
			if _, err := server.New(opts); err == nil {
				t.Error("accepted")
			}
		})
	}
}
