//go:build unix

package web_test

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// fakeAgent is the agent in the archives: it writes down how it was called, and does as
// files beside its record say.
const fakeAgent = `#!/bin/sh
echo "$*" >>"$RECORD/calls"
case $1 in
version) echo "eclitunnel NUMBER" ;;
status) [ -e "$RECORD/enrolled" ] || exit 6 ;;
enroll) [ ! -e "$RECORD/denied" ] || { echo "denied" >&2; exit 5; }; : >"$RECORD/enrolled" ;;
service) [ ! -e "$RECORD/$1-$2" ] || exit 1 ;;
esac
`

// home is a machine on which a person runs the script.
type home struct {
	t                 *testing.T
	dir, bin, record  string
	panel             *httptest.Server
	release, programs string
}

// platformsOf is what a uname prints, and the archive for it.
var platformsOf = map[string]string{
	"Linux x86_64": "linux_amd64", "Linux aarch64": "linux_arm64", "Linux armv7l": "linux_armv7", "Linux armv6l": "linux_armv6",
	"Linux i686": "linux_386", "Linux riscv64": "linux_riscv64", "Darwin arm64": "darwin_arm64", "Darwin x86_64": "darwin_amd64",
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir(), record: t.TempDir(), programs: t.TempDir()}
	h.bin = filepath.Join(h.dir, "bin")
	h.offer("1.2.3")
	h.panel = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handOut(t, web.InstallOptions{Agents: web.Agents{Dir: h.release}, URL: &url.URL{Scheme: "http", Host: r.Host}}).ServeHTTP(w, r)
	}))
	t.Cleanup(h.panel.Close)
	return h
}

// offer has the panel hand out a version.
func (h *home) offer(version string) {
	h.t.Helper()
	files := map[string]string{"eclitunneld_" + version + "_linux_amd64.tar.gz": "the panel"}
	for _, platform := range platformsOf {
		files["eclitunnel_"+version+"_"+platform+".tar.gz"] = tarball(h.t, strings.Replace(fakeAgent, "NUMBER", version+" for "+platform, 1))
	}
	h.release = agentsDir(h.t, files)
}

// replace puts a program of the test's own in front of one of the machine.
func (h *home) replace(name, script string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.programs, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// install runs the script in a shell as the one-line command does, and returns what it
// prints and what the agent was called with.
func (h *home) install(shell []string, flags ...string) (printed string, calls []string, err error) {
	h.t.Helper()
	answer, err := http.Get(h.panel.URL + "/install")
	if err != nil {
		h.t.Fatal(err)
	}
	defer answer.Body.Close()
	cmd := exec.CommandContext(h.t.Context(), shell[0], slices.Concat(shell[1:], []string{"-s", "--"}, flags)...)
	cmd.Stdin = answer.Body
	temporary := filepath.Join(h.dir, "tmp")
	if err := os.MkdirAll(temporary, 0o755); err != nil {
		h.t.Fatal(err)
	}
	cmd.Env = []string{
		"PATH=" + h.programs + ":" + os.Getenv("PATH"), "HOME=" + h.dir, "RECORD=" + h.record, "ECLITUNNEL_INSTALL_DIR=" + h.bin, "TMPDIR=" + temporary,
	}
	out, err := cmd.CombinedOutput()
	if left, _ := filepath.Glob(filepath.Join(temporary, "*")); len(left) > 0 {
		h.t.Errorf("it leaves %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(h.bin, ".*")); len(left) > 0 {
		h.t.Errorf("it leaves %v", left)
	}
	record := filepath.Join(h.record, "calls")
	text, _ := os.ReadFile(record)
	_ = os.Remove(record)
	return string(out), strings.Split(strings.TrimSpace(string(text)), "\n"), err
}

func (h *home) file(name string) {
	h.t.Helper()
	write(h.t, h.record, name, "")
}

// scope is the flag by which a service is one of the person who runs the tests.
func scope() string {
	if os.Getuid() == 0 {
		return ""
	}
	return " --user"
}

// shells are those of Linux distributions that are installed here.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for name, command := range map[string][]string{"sh": {"sh"}, "dash": {"dash"}, "bash": {"bash", "--posix"}, "busybox": {"busybox", "sh"}} {
		if _, err := exec.LookPath(command[0]); err == nil {
			found[name] = command
		}
	}
	if os.Getenv("CI") != "" && (found["busybox"] == nil || found["dash"] == nil) {
		t.Errorf("scripts/setup has not installed busybox and dash: there are only %v", slices.Collect(maps.Keys(found)))
	}
	return found
}

func TestInstallScript_FromNothingToAService(t *testing.T) {
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.replace("uname", `[ "$1" = -s ] && echo Linux || echo x86_64`)
			printed, calls, err := h.install(shell, "--tag", "a tag", "--name", "x")
			want := []string{
				"version", "status", "enroll --panel " + h.panel.URL + " --tag a tag --name x",
				"service --help", "service install" + scope(), "service stop" + scope(), "service start" + scope(),
			}
			if err != nil || !slices.Equal(calls, want) || !strings.Contains(printed, "eclitunnel 1.2.3 for linux_amd64") {
				t.Fatalf("%v: called %q, printed %s", err, calls, printed)
			}

			// A second run brings the new version, and leaves the enrollment.
			h.offer("1.2.4")
			printed, calls, err = h.install(shell, "--tag", "another")
			if err != nil || slices.ContainsFunc(calls, func(call string) bool { return strings.HasPrefix(call, "enroll") }) ||
				!slices.Contains(calls, "service start"+scope()) || !strings.Contains(printed, "1.2.4") || !strings.Contains(printed, "enrolled already") {
				t.Errorf("again: %v: called %q, printed %s", err, calls, printed)
			}
			if _, calls, err := h.install(shell, "--force"); err != nil || !slices.Contains(calls, "enroll --panel "+h.panel.URL+" --force") {
				t.Errorf("with --force: %v: called %q", err, calls)
			}
		})
	}
}

func TestInstallScript_FindsTheArchiveOfThePlatform(t *testing.T) {
	h := newHome(t)
	for name, platform := range platformsOf {
		system, machine, _ := strings.Cut(name, " ")
		h.replace("uname", `[ "$1" = -s ] && echo `+system+` || echo `+machine)
		if printed, _, err := h.install([]string{"sh"}); err != nil || !strings.Contains(printed, "for "+platform) {
			t.Errorf("%s: %v: %s", name, err, printed)
		}
	}
}

func TestInstallScript_AFailureSaysWhyAndLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, h *home)
		want    string
		code    int
		placed  bool // The program is installed all the same.
	}{
		"an unknown system": {func(_ *testing.T, h *home) {
			h.replace("uname", `[ "$1" = -s ] && echo Plan9 || echo x86_64`)
		}, "there is no agent for Plan9", 1, false},
		"an unknown processor": {func(_ *testing.T, h *home) {
			h.replace("uname", `[ "$1" = -s ] && echo Linux || echo mips64`)
		}, "there is no agent for the processor mips64", 1, false},
		"a platform that the panel lacks": {func(t *testing.T, h *home) {
			h.release = agentsDir(t, map[string]string{"eclitunnel_1.2.3_linux_riscv64.tar.gz": "archive"})
		}, "this panel has no agent for linux_amd64", 1, false},
		"a wrong checksum": {func(t *testing.T, h *home) {
			write(t, h.release, linuxAgent, tarball(t, "#!/bin/sh\necho changed\n"))
		}, "the checksum of " + linuxAgent + " is wrong", 1, false},
		"an archive that is gone": {func(t *testing.T, h *home) {
			if err := os.Remove(filepath.Join(h.release, linuxAgent)); err != nil {
				t.Fatal(err)
			}
		}, "cannot be downloaded", 1, false},
		"an agent that does not run": {func(t *testing.T, h *home) {
			h.release = agentsDir(t, map[string]string{linuxAgent: tarball(t, "#!/bin/sh\nexit 1\n")})
		}, "does not run on this machine", 1, false},
		"a denied enrollment": {func(_ *testing.T, h *home) { h.file("denied") }, "this machine is not enrolled", 1, true},
		"no service manager":  {func(_ *testing.T, h *home) { h.file("service-install") }, "Keep it running yourself, with: ", 0, true},
		"an old agent":        {func(_ *testing.T, h *home) { h.file("service---help") }, "Keep it running yourself, with: ", 0, true},
		"an end by the person": {func(_ *testing.T, h *home) {
			h.replace("tar", `kill -INT $PPID; sleep 5`)
		}, "", 130, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.replace("uname", `[ "$1" = -s ] && echo Linux || echo x86_64`)
			test.prepare(t, h)
			printed, _, err := h.install([]string{"sh"})
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != test.code || !strings.Contains(printed, test.want) {
				t.Errorf("it exits with %d and prints %s", code, printed)
			}
			if _, err := os.Stat(filepath.Join(h.bin, "eclitunnel")); (err == nil) != test.placed {
				t.Errorf("the program is there: %v", err == nil)
			}
		})
	}
}

func TestInstallScript_APartOfItDoesNothing(t *testing.T) {
	h := newHome(t)
	answer := ask(t, h.panel.Config.Handler, http.MethodGet, "/install", nil).Body.String()
	for _, part := range []int{len(answer) / 3, len(answer) / 2, strings.LastIndex(answer, "main ") - 1} {
		cmd := exec.CommandContext(t.Context(), "sh", "-s")
		cmd.Stdin = strings.NewReader(answer[:part])
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "ECLITUNNEL_INSTALL_DIR=" + h.bin}
		_ = cmd.Run() // It may complain about its end.
		if _, err := os.Stat(h.bin); err == nil {
			t.Errorf("%d of %d bytes did something", part, len(answer))
		}
	}
}
