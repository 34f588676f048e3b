package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// A container, or a script, has a token and the panel's address, and no enrollment.
func TestEnroll_ATokenServesWithoutAnEnrollment(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	for name, give := range map[string]func(dir, token string) string{
		"from a file": func(dir, token string) string {
			file := filepath.Join(dir, "token")
			writeFile(t, file, []byte(token+"\n"), 0o600)
			return "ECLITUNNEL_TOKEN_FILE=" + file
		},
		"from the environment": func(_, token string) string { return "ECLITUNNEL_TOKEN=" + token },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, dir := within(t, patience), t.TempDir()
			created, err := w.panel.API.CreateDeviceWithResponse(ctx, types.DeviceCreate{Name: "container"})
			if err != nil {
				t.Fatal(err)
			}
			if created.JSON201 == nil {
				t.Fatalf("create: %s: %s", created.Status(), created.Body)
			}
			agent := cluster.NewAgent(binaries, dir, "container", nil)
			agent.Device = created.JSON201.Device
			agent.Env = []string{"ECLITUNNEL_PANEL=" + w.panel.URL, give(dir, created.JSON201.Token)}
			process, err := agent.Start()
			if err != nil {
				t.Fatal(err)
			}
			clustertest.StopAtEnd(t, process)
			if err := w.panel.AwaitOnline(ctx, agent.Device.ID, process); err != nil {
				t.Fatal(err)
			}
			served := *w
			served.agent = agent
			address := served.expose(t, types.CreateTCP, game.port, nil)
			if err := plays(ctx, address); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(agent.Config()); err == nil {
				t.Error("the agent has stored an enrollment")
			}
			if strings.Contains(process.Output(), created.JSON201.Token) {
				t.Error("the agent prints its token")
			}
		})
	}
}

func TestEnroll_ADeniedAgentSaysSo(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, patience)
	agent := cluster.NewAgent(binaries, t.TempDir(), "unwanted", nil)
	process, err := cluster.StartProcess("unwanted", agent.Command(ctx, "enroll", "--panel", w.panel.URL, "--name", "unwanted"), nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	code, err := cluster.AwaitUserCode(ctx, process)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := w.panel.API.GetPendingDeviceWithResponse(ctx, &types.GetPendingDeviceParams{UserCode: &code})
	if err != nil {
		t.Fatal(err)
	}
	if p := pending.JSON200; p == nil || p.Name != "unwanted" || p.Platform.MustGet() != runtime.GOOS+"/"+runtime.GOARCH ||
		p.AgentVersion.MustGet() == "" || p.Address.MustGet() != "127.0.0.1" || !p.SameNetwork {
		t.Errorf("pending: %s: %s", pending.Status(), pending.Body)
	}
	denied, err := w.panel.API.DenyDeviceWithResponse(ctx, types.DeviceDenial{UserCode: code})
	if err != nil || denied.StatusCode() != http.StatusOK {
		t.Fatalf("deny: %v: %s", err, denied.Body)
	}
	const exitDenied = 5
	if exit, err := process.Wait(ctx); err != nil || exit != exitDenied || !strings.Contains(process.Output(), "denied") {
		t.Errorf("exit code %d, %v:\n%s", exit, err, process.Output())
	}
	if _, err := os.Stat(agent.Config()); err == nil {
		t.Error("the denied agent has stored an enrollment")
	}
}
