package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/await"
)

// egg is what a game panel reads of an egg, in the formats PTDL_v2 and PLCN_v3.
type egg struct {
	Meta                      struct{ Version string }
	Name, Author, Description string
	UUID                      string
	Images                    map[string]string `json:"docker_images"`
	Startup                   string
	StartupCommands           map[string]string `json:"startup_commands"`
	Config                    struct{ Files, Startup, Logs, Stop string }
	Scripts                   struct {
		Installation struct{ Script, Container, Entrypoint string }
	}
	Variables []eggVariable
}

type eggVariable struct {
	Name        string
	Description string
	Variable    string `json:"env_variable"`
	Default     string `json:"default_value"`
	Viewable    *bool  `json:"user_viewable"`
	Editable    *bool  `json:"user_editable"`
	Rules       any
}

const gamePanels = "../../deploy/game-panels"

func readEgg(t *testing.T, file string) (e egg) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(gamePanels, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// check checks what the panels require of an egg, and returns its startup command.
func (e egg) check(t *testing.T, version string) (startup string) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join(gamePanels, "with-tunnel.sh"))
	if err != nil {
		t.Fatal(err)
	}
	install := e.Scripts.Installation
	if e.Meta.Version != version || e.Name == "" || !strings.Contains(e.Author, "@") || len(e.Images) == 0 ||
		install.Container == "" || install.Entrypoint != "ash" || e.Config.Stop != "^C" {
		t.Errorf("%+v", e)
	}
	if install.Script != string(script) {
		t.Errorf("%s: the installation is not with-tunnel.sh", version)
	}
	for _, config := range []string{e.Config.Files, e.Config.Startup, e.Config.Logs} {
		if !json.Valid([]byte(config)) {
			t.Errorf("%s: the configuration %q is no JSON", version, config)
		}
	}
	for _, v := range e.Variables {
		_, isText := v.Rules.(string)
		if v.Name == "" || v.Viewable == nil || v.Editable == nil || isText != (version == "PTDL_v2") {
			t.Errorf("%s: %+v", version, v)
		}
		if v.Variable == "ECLITUNNEL_ENROLL_KEY" && (*v.Viewable || v.Default != "") {
			t.Errorf("%s: the key is shown", version)
		}
	}
	if version == "PTDL_v2" {
		return e.Startup
	}
	if len(e.UUID) != 36 {
		t.Errorf("%s: the UUID is %q", version, e.UUID)
	}
	return e.StartupCommands["Default"]
}

// installing is the panel of a world, with the agent at /install.
type installing struct {
	*httptest.Server
	broken atomic.Bool // The archive is another one than it has the checksum of.
}

// packed is the agent in an archive, for both tests.
var packed = sync.OnceValues(func() ([]byte, error) {
	binary, err := os.ReadFile(filepath.Join(binaries, "eclitunnel"))
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	zip, err := gzip.NewWriterLevel(&archive, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	pack := tar.NewWriter(zip)
	if err := pack.WriteHeader(&tar.Header{Name: "eclitunnel", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		return nil, err
	}
	_, err = pack.Write(binary)
	err = errors.Join(err, pack.Close(), zip.Close())
	return archive.Bytes(), err
})

func (w *world) installing(t *testing.T) *installing {
	t.Helper()
	archive, err := packed()
	if err != nil {
		t.Fatal(err)
	}
	name := "eclitunnel_1.2.3_linux_" + runtime.GOARCH + ".tar.gz"
	in := &installing{}
	sums := fmt.Sprintf("%x  eclitunnel_1.2.3_linux_none.tar.gz\n%x  %s\n", 0, sha256.Sum256(archive), name)
	panel, err := url.Parse(w.panel.URL)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", httputil.NewSingleHostReverseProxy(panel))
	mux.HandleFunc("GET /install/SHA256SUMS", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, sums) })
	mux.HandleFunc("GET /install/"+name, func(w http.ResponseWriter, _ *http.Request) {
		if in.broken.Load() {
			_, _ = w.Write([]byte("x"))
		}
		_, _ = w.Write(archive)
	})
	in.Server = httptest.NewServer(mux)
	t.Cleanup(in.Close)
	return in
}

// TestGamePanel_EggInstallsAndRunsTheAgent does what the nodes of game panels do with the
// eggs: it runs the installation, then the startup command as their images do.
func TestGamePanel_EggInstallsAndRunsTheAgent(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	startup := readEgg(t, "egg-pterodactyl-eclitunnel.json").check(t, "PTDL_v2")
	pelican := readEgg(t, "egg-pelican-eclitunnel.json")
	if other := pelican.check(t, "PLCN_v3"); other != startup {
		t.Errorf("the eggs start %q and %q", startup, other)
	}
	panel, dir := w.installing(t), t.TempDir()
	env := append(os.Environ(), "HOME="+dir, "TUNNEL_DIR="+dir, "ECLITUNNEL_PANEL="+panel.URL, "ECLITUNNEL_ENROLL_KEY="+w.enrollKey(t),
		"ECLITUNNEL_NAME=egg", "ECLITUNNEL_TUNNELS=minecraft=tcp:"+strconv.Itoa(game.port))
	install := func() error {
		cmd := exec.CommandContext(within(t, patience), find(t, "busybox"), "ash", filepath.Join(gamePanels, "with-tunnel.sh"))
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	panel.broken.Store(true)
	if err := install(); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("with another archive: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "eclitunnel")); err == nil {
		t.Fatal("what has the wrong checksum is installed")
	}
	panel.broken.Store(false)
	if err := install(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec "+startup)
	cmd.Dir, cmd.Env = dir, env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // As ^C of the egg.
	output := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitEgg(t, "egg")
	_ = cmd.Process.Signal(syscall.SIGINT)
	var ready struct{ Done string }
	if err := json.Unmarshal([]byte(pelican.Config.Startup), &ready); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(output.String(), ready.Done) {
		t.Errorf("%v without %q:\n%s", err, ready.Done, output)
	}
}

// awaitEgg plays through the port minecraft of a device, and deletes the device.
func (w *world) awaitEgg(t *testing.T, name string) {
	t.Helper()
	ctx := within(t, patience)
	await.Within(t, patience, "device "+name, func(context.Context) (bool, error) { return len(w.devicesNamed(t, name)) == 1, nil })
	device := w.devicesNamed(t, name)[0]
	if err := plays(ctx, w.awaitPort(t, device, "minecraft").PublicAddress); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		if _, err := w.panel.API.DeleteDeviceWithResponse(context.Background(), device.ID); err != nil {
			t.Error(err)
		}
	})
}

// TestGamePanel_WrapperLeavesTheGameAlone runs the agent beside a game whose console and
// signals are as without it, and which does not get the key.
func TestGamePanel_WrapperLeavesTheGameAlone(t *testing.T) {
	w, echo := sharedFor(t), startEcho(t)
	panel, dir := w.installing(t), t.TempDir()
	script, err := filepath.Abs(filepath.Join(gamePanels, "with-tunnel.sh"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(env ...string) (*exec.Cmd, io.WriteCloser, *bytes.Buffer) {
		game := exec.CommandContext(within(t, patience), "sh", script, "sh", "-c",
			`trap "echo saved; exit 7" TERM; echo "pid $$ key ${ECLITUNNEL_ENROLL_KEY-none}"; while read -r line; do echo "console: $line"; done`)
		game.Dir = dir
		game.Env = append(os.Environ(), env...)
		var output bytes.Buffer
		game.Stdout, game.Stderr = &output, &output
		console, err := game.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := game.Start(); err != nil {
			t.Fatal(err)
		}
		return game, console, &output
	}
	game, console, output := run("ECLITUNNEL_PANEL="+panel.URL+"/", "ECLITUNNEL_ENROLL_KEY="+w.enrollKey(t),
		"ECLITUNNEL_NAME=beside", "ECLITUNNEL_TUNNELS=minecraft=tcp:"+strconv.Itoa(echo.port))
	if _, err := io.WriteString(console, "say hello\n"); err != nil {
		t.Error(err)
	}
	w.awaitEgg(t, "beside")
	_ = game.Process.Signal(syscall.SIGTERM)
	err = game.Wait()
	_ = console.Close()
	want := fmt.Sprintf("pid %d key none\nconsole: say hello\nsaved\n", game.Process.Pid)
	if code := game.ProcessState.ExitCode(); code != 7 || output.String() != want {
		t.Errorf("%v, %q, want %q and exit code 7", err, output, want)
	}
	await.Within(t, patience, "end of the agent", func(context.Context) (bool, error) {
		log, err := os.ReadFile(filepath.Join(dir, ".eclitunnel", "agent.log"))
		return strings.HasSuffix(string(log), "stopped\n"), err
	})

	// Without a panel, and with one that is gone, the game runs all the same.
	panel.Close()
	for _, env := range [][]string{{"ECLITUNNEL_PANEL="}, {"ECLITUNNEL_PANEL=" + panel.URL}} {
		game, console, output := run(env...)
		_ = console.Close()
		if err := game.Wait(); err != nil || output.String() != fmt.Sprintf("pid %d key none\n", game.Process.Pid) {
			t.Errorf("%q: %v, %q", env, err, output)
		}
	}
}
