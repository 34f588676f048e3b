package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/documents"
)

// documented returns the blocks of commands in the section "Backup and restore" of
// docs/operations.md, in which the panel's directory and address are those of w.
func (w *world) documented(t *testing.T) (backup, restore string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## Backup and restore\n")
	blocks := documents.Page("docs/operations.md", section).Blocks
	if !ok || len(blocks) < 2 {
		t.Fatal("the page has no such blocks")
	}
	here := strings.NewReplacer("/var/lib/eclitunneld/", w.dir+"/panel/", "http://127.0.0.1:8080", w.panel.URL)
	return here.Replace(blocks[0]), here.Replace(blocks[1])
}

// machine runs blocks of commands in a shell in which sudo does nothing and systemctl asks
// this test, while PG variables lead elsewhere.
type machine struct{ dir string }

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{t.TempDir()}
	for name, script := range map[string]string{
		"sudo":      "shift 2\nexec \"$@\"\n", // Without "-u eclitunneld".
		"systemctl": "echo \"$1\" > '" + m.dir + "/request.new'\nmv '" + m.dir + "/request.new' '" + m.dir + "/request'\nwhile [ -e '" + m.dir + "/request' ]; do sleep 0.1; done\n",
	} {
		writeFile(t, filepath.Join(m.dir, name), []byte("#!/bin/sh\n"+script), 0o755)
	}
	return m
}

func (m machine) command(ctx context.Context, block string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", block)
	cmd.Dir = m.dir
	cmd.WaitDelay = 10 * time.Second // A systemctl that waits outlives the shell, and keeps its output open.
	cmd.Env = append(os.Environ(), "PATH="+m.dir+":"+os.Getenv("PATH"),
		"PGHOST=127.0.0.1", "PGPORT=1", "PGDATABASE=production", "PGSERVICE=production")
	return cmd
}

// serve answers what the block asks of systemctl, until ctx ends.
func (m machine) serve(ctx context.Context, answer func(verb string) error) error {
	request := filepath.Join(m.dir, "request")
	return cluster.Until(ctx, "the block ends", func(context.Context) (bool, error) {
		verb, err := os.ReadFile(request)
		if err != nil {
			return ctx.Err() != nil, nil
		}
		if err := answer(strings.TrimSpace(string(verb))); err != nil {
			return false, err
		}
		return false, os.Remove(request)
	})
}

// restore runs the block for restoring, and starts and restarts the panel as it asks.
// Every device meets the empty database before the backup is in it.
func (w *world) restore(t *testing.T, m machine, block string) {
	t.Helper()
	devices := []*cluster.Process{w.running}
	if w.serving != nil {
		devices = append(devices, w.serving)
	}
	ctx := within(t, 5*time.Minute)
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	blockCtx, cut := context.WithCancel(ctx)
	defer cut()
	go func() {
		defer cut() // The block would wait for an answer.
		served <- m.serve(serving, func(verb string) error {
			if verb == "restart" {
				if err := w.panel.Stop(); err != nil {
					return err
				}
				return w.panel.Launch()
			}
			if err := w.panel.Launch(); err != nil {
				return err
			}
			if err := w.panel.AwaitReady(ctx); err != nil {
				return err
			}
			return cluster.Until(ctx, "every device calls the empty panel", func(context.Context) (bool, error) {
				return !slices.ContainsFunc(devices, func(device *cluster.Process) bool {
					return !strings.Contains(device.Output(), "does not know this device now")
				}), nil
			})
		})
	}()
	out, err := m.command(blockCtx, block).CombinedOutput()
	stop()
	answered := <-served // An error in any case: it ends with its context.
	if err != nil {
		t.Fatalf("restore: %v (systemctl: %v)\n%s", err, answered, out)
	}
}

// loseDatabase stops the panel and moves its data out of the way.
func (w *world) loseDatabase(t *testing.T) {
	t.Helper()
	if err := w.panel.Stop(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(w.dir, "panel")
	if err := os.Rename(data, data+".damaged"); err != nil {
		t.Fatal(err)
	}
}

func TestRestore_AsDocumentedLosesNobody(t *testing.T) {
	find(t, "psql")
	w, game, m := ownFleet(t), startEcho(t), newMachine(t)
	public := w.expose(t, types.CreateTCPUDP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	before := w.everything(t)
	backup, restore := w.documented(t)
	if out, err := m.command(within(t, time.Minute), backup).CombinedOutput(); err != nil {
		t.Fatalf("back up: %v\n%s", err, out)
	}
	w.loseDatabase(t)

	// Without the database's address it must stop, and not reach another Postgres.
	alone := strings.ReplaceAll(restore, "systemctl start", ": systemctl start")
	alone = strings.Replace(alone, "curl -fsS", "true curl", 1)
	if out, err := m.command(within(t, time.Minute), alone).CombinedOutput(); err == nil || strings.Contains(string(out), "production") {
		t.Errorf("restoring without a panel: %v\n%s", err, out)
	}

	w.restore(t, m, restore)
	if _, err := exchange(player, 2, patience); err != nil {
		t.Errorf("the player is lost: %v", err)
	}
	for name, device := range map[string]struct {
		id      types.Device
		process *cluster.Process
	}{"agent": {w.agent.Device, w.running}, "tunnel server": {w.server.Device, w.serving}} {
		if err := w.panel.AwaitOnline(within(t, patience), device.id.ID, device.process); err != nil {
			t.Errorf("the %s is lost: %v", name, err)
		}
	}
	awaitPlay(t, patience, public)
	if after := w.everything(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// host starts programs on a machine of that name, in a UTS namespace.
type host struct{ name string }

func (h *host) start(name string, cmd *exec.Cmd, copyTo io.Writer) (*cluster.Process, error) {
	named := exec.Command("unshare", append([]string{
		"--uts", "sh", "-c", `hostname "$0" && exec "$@"`, h.name, cmd.Path,
	}, cmd.Args[1:]...)...)
	named.Env = cmd.Env
	return cluster.StartProcess(name, named, copyTo)
}

func TestRestore_OnAMachineOfAnotherNameKeepsTheEmbeddedTunnelServersPorts(t *testing.T) {
	for _, program := range []string{"psql", "unshare", "hostname"} {
		find(t, program)
	}
	// Not even every root may: that of a container lacks the capability.
	if out, err := exec.Command("unshare", "--uts", "hostname", "probe").CombinedOutput(); err != nil {
		t.Skipf("cannot give a machine another name: %v: %s", err, out)
	}
	on, game, m := &host{"old-machine"}, startEcho(t), newMachine(t)
	w := makeWorld(t, embedded, func(o *cluster.PanelOptions) { o.Start = on.start })
	public := w.expose(t, types.CreateTCPUDP, game.port, nil)
	awaitPlay(t, patience, public)
	before := w.everything(t)
	if !strings.Contains(before, " old-machine server\n") {
		t.Fatalf("the tunnel server has not the machine's name:\n%s", before)
	}
	backup, restore := w.documented(t)
	if out, err := m.command(within(t, time.Minute), backup).CombinedOutput(); err != nil {
		t.Fatalf("back up: %v\n%s", err, out)
	}
	w.loseDatabase(t)

	on.name = "new-machine"
	w.restore(t, m, restore)
	if err := w.panel.AwaitOnline(within(t, patience), w.agent.Device.ID, w.running); err != nil {
		t.Errorf("the agent is lost: %v", err)
	}
	awaitPlay(t, patience, public)
	if after := w.everything(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
