package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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
// the panel and a game's port in place of its own.
func (w *world) composedAgent(t *testing.T, file string, port int) (env []string) {
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
		case "ECLITUNNEL_TUNNELS":
			value = strings.Replace(value, "25565", strconv.Itoa(port), 1)
		}
		env = append(env, name+"="+value)
	}
	return env
}

// imageEnv returns the environment that the agent's image sets.
func imageEnv(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, stage, _ := strings.Cut(string(text), "FROM base AS eclitunnel\n")
	line := regexp.MustCompile(`(?m)^ENV (.*)$`).FindStringSubmatch(stage)
	if line == nil || !strings.Contains(stage, "\nUSER 65532") && !strings.Contains(string(text), "\nUSER 65532:65532\n") {
		t.Fatal("the image has no environment or another user")
	}
	return strings.Fields(line[1])
}

// containerRoot makes a file system with what the agent's image and a secret have in it,
// and nothing else.
func containerRoot(t *testing.T, key string) string {
	t.Helper()
	root := t.TempDir()
	binary, err := os.ReadFile(filepath.Join(binaries, "eclitunnel"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"usr/bin", "run/secrets", "var/lib/eclitunnel"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, "usr/bin/eclitunnel"), binary, 0o755)
	writeFile(t, filepath.Join(root, "run/secrets/enroll-key"), []byte(key+"\n"), 0o400)
	for _, own := range []string{"var/lib/eclitunnel", "run/secrets/enroll-key"} {
		if err := os.Chown(filepath.Join(root, own), 65532, 65532); err != nil {
			t.Fatal(err)
		}
	}
	// The parents that t.TempDir makes are for their owner alone.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestContainer_EnrollsItselfAndOpensItsPorts starts what the example starts beside
// Minecraft, in a file system of the image's files alone and as its user, twice with one
// volume, and plays.
func TestContainer_EnrollsItselfAndOpensItsPorts(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	ctx, dir := within(t, patience), t.TempDir()
	key := w.enrollKey(t)
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("only root can change the root directory")
	default:
		t.Skip("only root can change the root directory")
	}
	agent := cluster.NewAgent(binaries, dir, "container", nil)
	root := containerRoot(t, key)
	env := append(imageEnv(t), w.composedAgent(t, "minecraft.yaml", game.port)...)
	agent.StartWith = func(name string, cmd *exec.Cmd, log io.Writer) (*cluster.Process, error) {
		cmd.Path, cmd.Dir, cmd.Env = "/usr/bin/eclitunnel", "/", env
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cluster.StartProcess(name, cmd, log)
	}
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
