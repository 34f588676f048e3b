package server_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/db/postgres"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// dataDir creates a directory that the account of Postgres can access.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "eclitunnel-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPanel_SurvivesACrashOfItsPostgres(t *testing.T) {
	dir := dataDir(t)
	p := servertest.Start(t, func(o *server.Options) { o.Database.DataDir = dir })
	device := p.Enroll("gaming-rig")
	agent := p.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)

	content, err := os.ReadFile(filepath.Join(dir, "cluster", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status := func() int {
		resp, err := p.HTTP.Get(p.URL + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	controltest.Eventually(t, "not ready", func() bool { return status() == http.StatusServiceUnavailable })
	controltest.Eventually(t, "ready again", func() bool { return status() == http.StatusOK })
	allocate(t, p.Admin(), device, types.CreateTCP)
	if got := controltest.Next[types.ClientChange](agent); len(got.Allocations) != 1 {
		t.Errorf("change %+v", got)
	}
	if !agent.Open() {
		t.Error("the channel ended")
	}
}

func TestCreateAdmin_WorksWithAndWithoutARunningPanel(t *testing.T) {
	database := server.Database{DataDir: dataDir(t)}
	create := func(email string) {
		t.Helper()
		account := server.Account{Email: email, Password: servertest.AdminPassword}
		if err := server.CreateAdmin(t.Context(), database, account, nil); err != nil {
			t.Fatal(err)
		}
	}
	first, err := postgres.Start(t.Context(), postgres.Options{DataDir: database.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Migrate(t.Context(), server.Database{URL: first.URL()}, nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	create("before@example.com")
	p := servertest.Start(t, func(o *server.Options) {
		o.Database = database
		o.FirstAdmin = server.Account{}
		o.TunnelServer.Disabled = true
	})
	create("beside@example.com")
	for _, email := range []string{"before@example.com", "BESIDE@example.com"} {
		login := types.LoginRequest{Email: "", Password: servertest.AdminPassword}
		if err := login.Email.UnmarshalJSON([]byte(strconv.Quote(email))); err != nil {
			t.Fatal(err)
		}
		resp, err := p.Client("").LoginWithResponse(t.Context(), login)
		if err != nil || resp.JSON200 == nil || resp.JSON200.User.Role != types.RoleAdmin {
			t.Errorf("%s: %v %s", email, err, resp.Body)
		}
	}
}

// embedded returns the panel's tunnel server once it is online.
func embedded(t *testing.T, admin *client.ClientWithResponses) types.Device {
	t.Helper()
	var found types.Device
	controltest.Eventually(t, "tunnel server online", func() bool {
		resp, err := admin.ListDevicesWithResponse(t.Context(), nil)
		if err != nil || resp.JSON200 == nil {
			t.Fatalf("%v %s", err, resp.Body)
		}
		for _, device := range *resp.JSON200 {
			if device.Kind == types.DeviceKindServer && device.Online {
				found = device
				return true
			}
		}
		return false
	})
	return found
}

func TestTunnelServer_ReachesThePanelWhereverItListens(t *testing.T) {
	certFile, keyFile, _ := certify(t)
	for name, change := range map[string]func(*server.Options){
		"every address":                             func(o *server.Options) { o.Listen = ":0" },
		"a certificate without its host name":       func(o *server.Options) { o.Listen, o.TLSCertFile, o.TLSKeyFile = ":0", certFile, keyFile },
		"a public URL that nothing here listens on": func(o *server.Options) { o.PublicURL = &url.URL{Scheme: "https", Host: "panel.invalid"} },
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewPedanticRegistry()
			servertest.Start(t, func(o *server.Options) { o.Metrics = registry }, change)
			controltest.Eventually(t, "tunnel server online", func() bool {
				return series(t, registry)[`panel_devices_online{kind="server"}`] == 1
			})
		})
	}
}

func TestTunnelServer_SurvivesATokenChangeAndADeletion(t *testing.T) {
	p := servertest.Start(t)
	admin := p.Admin()
	first := embedded(t, admin)

	if resp, err := admin.RegenerateDeviceTokenWithResponse(t.Context(), first.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("regenerate: %v %s", err, resp.Body)
	}
	fingerprint := first.Server.MustGet().Fingerprint
	controltest.Eventually(t, "back with the new token", func() bool {
		now := embedded(t, admin)
		return now.ID == first.ID && now.Server.MustGet().Fingerprint != fingerprint
	})

	if resp, err := admin.DeleteDeviceWithResponse(t.Context(), first.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	second := embedded(t, admin)
	if second.ID == first.ID || second.ID == uuid.Nil {
		t.Errorf("it was %s and is %s", first.ID, second.ID)
	}
}

func TestTunnelServer_StandsByForANewerPanelWithTheSameName(t *testing.T) {
	url := dbtest.URL(t)
	same := func(o *server.Options) {
		o.Database.URL = url
		o.TunnelServer.Standby.Poll, o.TunnelServer.Standby.Grace = 5*time.Millisecond, 50*time.Millisecond
	}
	registry := prometheus.NewPedanticRegistry()
	older := servertest.Start(t, same, func(o *server.Options) { o.Metrics = registry })
	serves := func() bool { return series(t, registry)[`panel_devices_online{kind="server"}`] == 1 }
	id := embedded(t, older.Admin()).ID
	newer := servertest.Start(t, same)
	if now := embedded(t, newer.Admin()); now.ID != id {
		t.Errorf("it was %s and is %s", id, now.ID)
	}
	controltest.Eventually(t, "the older one stands by", func() bool { return !serves() })
	// Both panels keep running and serve devices.
	device := older.Enroll("gaming-rig")
	controltest.Next[types.ClientSnapshot](older.Connect(device))

	admin := older.Admin()
	newer.Stop()
	controltest.Eventually(t, "the older one serves again", serves)
	if now := embedded(t, admin); now.ID != id {
		t.Errorf("it was %s and is %s", id, now.ID)
	}
	allocate(t, admin, device, types.CreateTCP)
}

func TestTunnelServer_ReconnectsWhenTunnelsAreSwitchedOn(t *testing.T) {
	p := servertest.Start(t)
	admin := p.Admin()
	device := p.Enroll("gaming-rig")
	created := allocate(t, admin, device, types.CreateTCP)
	setTunnels(t, admin, false)
	controltest.Eventually(t, "feature off", func() bool {
		_, err := p.Dial(t.Context(), device.Token)
		return err != nil
	})
	setTunnels(t, admin, true)
	embedded(t, admin)
	// The panel closes channels until it has received the change.
	controltest.Eventually(t, "channel stays", func() bool {
		ws, err := p.Dial(t.Context(), device.Token)
		if err != nil {
			t.Fatal(err)
		}
		hello := types.Hello{Type: types.TypeHello, AgentVersion: "0.0.0-test", Platform: "test/test"}
		return ws.WriteJSON(hello) == nil && controltest.NewPeer(t, ws).Stays()
	})
	agent := p.Connect(device)
	ready(agent, controltest.Next[types.ClientSnapshot](agent).Revision, created.ID)
	listening(t, admin, created.ID)
}

func TestKeys_WaitForAPanelThatIsStarting(t *testing.T) {
	for name, note := range map[string]string{
		"no address yet":               "",
		"the address of a former run":  "postgres://eclitunnel@/postgres?host=%2Fnowhere&port=5432&sslmode=disable",
		"an address that is not whole": " ",
	} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			starting, err := postgres.Start(t.Context(), postgres.Options{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := starting.Stop(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			if err := server.Migrate(t.Context(), server.Database{URL: starting.URL()}, nil); err != nil {
				t.Fatal(err)
			}
			if note != "" {
				if err := os.WriteFile(filepath.Join(dir, "database.url"), []byte(note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var log testlog.Buffer
			listed := make(chan error, 1)
			go func() {
				_, err := server.Keys(t.Context(), server.Database{DataDir: dir}, slog.New(slog.NewTextHandler(&log, nil)))
				listed <- err
			}()
			controltest.Eventually(t, "it says that it waits", func() bool { return strings.Contains(log.String(), "waiting for the panel") })
			if err := starting.NoteURL("database.url"); err != nil {
				t.Fatal(err)
			}
			if err := <-listed; err != nil {
				t.Error(err)
			}
		})
	}
}
