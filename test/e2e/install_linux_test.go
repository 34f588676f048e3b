package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

const (
	debianSuite    = "bookworm"
	debianPackages = "systemd+systemd-sysv+passwd+sudo+curl+ca-certificates"
	// bootPatience is how long a Debian may take to start, and makePatience to be made.
	bootPatience, makePatience = time.Minute, 5 * time.Minute
)

// debianRoot makes the files of a clean Debian with systemd and returns their directory. It
// is kept for the next run: nothing is written to it.
var debianRoot = sync.OnceValues(func() (string, error) {
	program, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "eclitunnel-tests", debianSuite+"-"+runtime.GOARCH+"-"+debianPackages)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), makePatience)
	defer cancel()
	args := []string{"--quiet", "--variant=essential", "--include=" + strings.ReplaceAll(debianPackages, "+", ","), debianSuite, fresh}
	// From where this machine gets its own packages, if it is a Debian of that release.
	mirror, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: "+debianSuite, "Component: main").Output()
	if first, _, _ := strings.Cut(string(mirror), "\n"); err == nil && first != "" {
		args = append(args, first)
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(fresh))
	}
	return dir, errors.Join(os.Chmod(fresh, 0o755), os.Rename(fresh, dir))
})

// computer is a Debian that runs systemd in namespaces of its own, but for the network.
type computer struct {
	root   string
	boot   func()
	nspawn *exec.Cmd
	output *bytes.Buffer
	ended  chan error
}

// startComputer starts a clean Debian with the user ada, who may use sudo.
func startComputer(t *testing.T) *computer {
	t.Helper()
	nspawn := find(t, "systemd-nspawn")
	find(t, "mmdebstrap")
	if os.Geteuid() != 0 {
		skipOrFail(t, "only root can start a Debian")
	}
	clean, err := debianRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := clustertest.Dir(t)
	c := &computer{root: filepath.Join(dir, "root"), output: new(bytes.Buffer), ended: make(chan error, 1)}
	for _, name := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", clean, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	if err := syscall.Mount("overlay", c.root, "overlay", 0, layers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(c.root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c.boot = func() {
		t.Helper()
		c.nspawn = exec.Command(nspawn, "--directory="+c.root, "--machine=home", "--boot", "--register=no", "--keep-unit", "--quiet")
		c.nspawn.Stdout, c.nspawn.Stderr = c.output, c.output
		if err := c.nspawn.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { c.ended <- c.nspawn.Wait() }()
		c.awaitBoot(t)
	}
	t.Cleanup(func() {
		if t.Failed() {
			//nolint:usetesting // that of the test has ended
			out, _ := c.command(context.Background(), "ls -lR /run/eclitunnel; journalctl --no-pager --unit eclitunnel").CombinedOutput()
			t.Logf("%s", out)
		}
		if init := c.init(); init != 0 {
			_ = syscall.Kill(init, syscall.SIGKILL)
		}
		if c.nspawn != nil && c.nspawn.Process.Kill() == nil {
			<-c.ended //nolint:errcheck // it was killed
		}
		if t.Failed() {
			t.Logf("%s", c.output)
		}
	})
	c.boot()
	c.want(t, "useradd --create-home --shell /bin/sh ada && echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada")
	return c
}

// reboot ends what runs on the Debian and starts it again, as the machine of a program that
// is told to does.
func (c *computer) reboot(t *testing.T) {
	t.Helper()
	c.want(t, "systemctl reboot")
	await.Receive(t, c.ended, "the end of the Debian") //nolint:errcheck // its exit code asks for the start that follows
	c.boot()
}

// init returns the pid of the Debian's first process, or 0.
func (c *computer) init() int {
	if c.nspawn == nil || c.nspawn.Process == nil {
		return 0
	}
	pid := strconv.Itoa(c.nspawn.Process.Pid)
	children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(children), " ")
	init, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return init
}

// awaitBoot waits until systemd has started everything.
func (c *computer) awaitBoot(t *testing.T) {
	t.Helper()
	await.Within(t, bootPatience, "running Debian", func(ctx context.Context) (bool, error) {
		if c.init() == 0 {
			return false, nil
		}
		out, err := c.command(ctx, "systemctl is-system-running").CombinedOutput()
		state := strings.TrimSpace(string(out))
		if state == "running" || state == "degraded" {
			return true, nil
		}
		return false, fmt.Errorf("it is %q: %w", state, err)
	})
}

// command returns a command of root's shell on the Debian.
func (c *computer) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(c.init()), "--mount", "--uts", "--ipc", "--pid", "--",
		"/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	return cmd
}

// asAda returns a command of ada's.
func (c *computer) asAda(ctx context.Context, script string) *exec.Cmd {
	cmd := c.command(ctx, "exec su - ada -c \"$SCRIPT\"")
	cmd.Env = append(cmd.Env, "SCRIPT="+script)
	return cmd
}

func (c *computer) want(t *testing.T, script string) {
	t.Helper()
	if out, err := c.command(within(t, patience), script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// adaWants runs a command of ada's and returns what it prints.
func (c *computer) adaWants(t *testing.T, script string) string {
	t.Helper()
	cmd := c.asAda(within(t, patience), script)
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", script, err, out, stderr)
	}
	return string(out)
}

// agentsDir makes a directory with the agent's archive, as a release has it.
func agentsDir(t *testing.T) string {
	t.Helper()
	archive, err := packed()
	if err != nil {
		t.Fatal(err)
	}
	dir := clustertest.Dir(t)
	name := "eclitunnel_0.1.0_linux_" + runtime.GOARCH + ".tar.gz"
	writeFile(t, filepath.Join(dir, name), archive, 0o644)
	writeFile(t, filepath.Join(dir, "SHA256SUMS"), fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(archive), name), 0o644)
	return dir
}

// approveTagged approves the machine that runs the command of a page.
func (w *world) approveTagged(t *testing.T, tag string) types.Device {
	t.Helper()
	var code string
	await.Within(t, patience, "machine that asks", func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.GetPendingDeviceWithResponse(ctx, &types.GetPendingDeviceParams{Tag: &tag})
		if err != nil || answer.JSON200 == nil {
			return false, errors.Join(err, errors.New("nobody asks"))
		}
		code = answer.JSON200.UserCode
		return true, nil
	})
	device, err := w.panel.Approve(within(t, patience), code)
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// TestInstall_FromNothingToAPlayersByteAndAfterAReboot types on a clean Debian what a person
// types, and nothing after its restart.
func TestInstall_FromNothingToAPlayersByteAndAfterAReboot(t *testing.T) {
	t.Parallel()
	home := startComputer(t)
	agents := agentsDir(t)
	w := makeWorld(t, embedded, func(o *cluster.PanelOptions) { o.Env = append(o.Env, "ECLITUNNEL_AGENTS_DIR="+agents) })
	game := startEcho(t)

	const tag = "fromNothingToAPlayer_1"
	install := home.asAda(within(t, time.Minute), "curl -fsSL "+w.panel.URL+"/install | sudo sh -s -- --tag "+tag+" --name home")
	printed := new(bytes.Buffer)
	install.Stdout, install.Stderr = printed, printed
	if err := install.Start(); err != nil {
		t.Fatal(err)
	}
	device := w.approveTagged(t, tag)
	if err := install.Wait(); err != nil || !strings.Contains(printed.String(), "runs as a service") {
		t.Fatalf("%v: %s", err, printed)
	}

	// Ada has neither the token nor root's rights, and the service lets her in.
	var ports []struct{ PublicAddress string }
	out := home.adaWants(t, fmt.Sprintf("eclitunnel open tcp %d --name game --json", game.port))
	if err := json.Unmarshal([]byte(out), &ports); err != nil || len(ports) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	public := ports[0].PublicAddress
	awaitPlay(t, patience, public)
	if out := home.adaWants(t, "eclitunnel list && eclitunnel status && sudo eclitunnel service status"); !strings.Contains(out, public) || !strings.Contains(out, "The service runs") {
		t.Errorf("afterwards: %s", out)
	}

	home.reboot(t)
	awaitPlay(t, patience, public)
	// Players need not wait for this: the agent serves what it knew before.
	await.Within(t, patience, "device online", func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.GetDeviceWithResponse(ctx, device.ID)
		return err == nil && answer.JSON200 != nil && answer.JSON200.Online, err
	})

	home.adaWants(t, "sudo eclitunnel service uninstall")
	if err := plays(within(t, patience), public); err == nil {
		t.Error("players can join after the service was removed")
	}
}
