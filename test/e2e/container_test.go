package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// enrollKey creates an API key with the one scope that an agent needs to enroll itself.
func (w *world) enrollKey(t *testing.T) string {
	t.Helper()
	key, err := w.panel.API.CreateAPIKeyWithResponse(within(t, patience), types.APIKeyCreate{
		Name: "containers", Scopes: []types.APIKeyScope{types.ScopeEnrollment},
	})
	if err != nil || key.JSON201 == nil {
		t.Fatalf("create a key: %v", err)
	}
	return key.JSON201.Key
}

// devicesNamed returns the devices of a name.
func (w *world) devicesNamed(t *testing.T, name string) (named []types.Device) {
	t.Helper()
	answer, err := w.panel.API.ListDevicesWithResponse(within(t, patience), &types.ListDevicesParams{})
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("list devices: %v", err)
	}
	for _, device := range *answer.JSON200 {
		if device.Name == name {
			named = append(named, device)
		}
	}
	return named
}

// awaitPort waits until players can join at the allocation of a name, and returns it.
func (w *world) awaitPort(t *testing.T, device types.Device, name string) types.Allocation {
	t.Helper()
	var found types.Allocation
	await.Within(t, patience, "port "+name, func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.ListAllocationsWithResponse(ctx, &types.ListAllocationsParams{})
		if err != nil || answer.JSON200 == nil {
			return false, err
		}
		for _, a := range *answer.JSON200 {
			if a.DeviceID == device.ID && a.Name == name && a.Status == types.AllocationListening {
				found = a
				return true, nil
			}
		}
		return false, nil
	})
	return found
}

// composedAgent returns the environment of the agent in a compose file, with the URL of
// the panel, a file with a key and a game's port in place of its own.
func (w *world) composedAgent(t *testing.T, file, keyFile string, port int) (env []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "examples", file))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	for name, value := range compose.Services["agent"].Environment {
		switch name {
		case "ECLITUNNEL_PANEL":
			value = w.panel.URL
		case "ECLITUNNEL_ENROLL_KEY_FILE":
			value = keyFile
		case "ECLITUNNEL_TUNNELS":
			value = strings.Replace(value, "25565", strconv.Itoa(port), 1)
		}
		env = append(env, name+"="+value)
	}
	return env
}

// TestContainer_EnrollsItselfAndOpensItsPorts starts what the example starts beside
// Minecraft, twice with one volume, and plays.
func TestContainer_EnrollsItselfAndOpensItsPorts(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	ctx, dir := within(t, patience), t.TempDir()
	key := w.enrollKey(t)
	agent := cluster.NewAgent(binaries, dir, "container", nil)
	writeFile(t, filepath.Join(dir, "key"), []byte(key+"\n"), 0o600)
	agent.Env = append(w.composedAgent(t, "minecraft.yaml", filepath.Join(dir, "key"), game.port),
		"ECLITUNNEL_CONFIG="+filepath.Join(dir, "volume", "config.json"), "ECLITUNNEL_LOG_FORMAT=json")
	var port types.Allocation
	for start := 1; start <= 2; start++ {
		process, err := agent.Start()
		if err != nil {
			t.Fatal(err)
		}
		clustertest.StopAtEnd(t, process)
		await.Within(t, patience, "device", func(context.Context) (bool, error) { return len(w.devicesNamed(t, "minecraft")) > 0, nil })
		devices := w.devicesNamed(t, "minecraft")
		if len(devices) != 1 {
			t.Fatalf("start %d: %d devices", start, len(devices))
		}
		agent.Device = devices[0]
		if err := w.panel.AwaitOnline(ctx, agent.Device.ID, process); err != nil {
			t.Fatal(err)
		}
		again := w.awaitPort(t, agent.Device, "minecraft")
		if start > 1 && again.ID != port.ID {
			t.Errorf("allocation %d became %d", port.ID, again.ID)
		}
		port = again
		if err := plays(ctx, port.PublicAddress); err != nil {
			t.Error(err)
		}
		if strings.Contains(process.Output(), key) {
			t.Error("the agent prints the key")
		}
		if err := process.Stop(); err != nil {
			t.Errorf("start %d: %v", start, err)
		}
	}
	answer, err := w.panel.API.DeleteDeviceWithResponse(ctx, agent.Device.ID)
	if err != nil || answer.StatusCode() != http.StatusOK {
		t.Errorf("delete the device: %v", err)
	}
}
