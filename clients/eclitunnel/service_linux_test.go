package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/deploy/systemd"
)

// standIn is a systemctl that notes its calls and keeps what it would keep: which units are
// enabled, and which run.
const standIn = `#!/bin/sh
echo "$@" >> "$STAND_IN/calls"
for unit; do case $unit in *.service) break ;; esac; done
running=$STAND_IN/$unit.running
[ ! -e "$STAND_IN/away" ] || { echo "Failed to connect to bus" >&2; exit 1; }
case "$*" in
--version*) echo "systemd 252 (252)" ;;
is-active*) [ -e "$running" ] && echo active && exit 0; echo inactive; exit 3 ;;
list-unit-files*) [ -e "$HOME/.config/systemd/user/$unit" ] && echo "$unit enabled" || : ;;
start* | restart*) [ -e "$HOME/.config/systemd/user/$unit" ] || { echo "Unit $unit not found." >&2; exit 5; }; : > "$running" ;;
stop*) rm -f "$running" ;;
esac
`

// managedHome is a home on a system whose service manager is the stand-in.
type managedHome struct {
	home string
	env  []string
}

func newHome(t *testing.T, manager bool) *managedHome {
	t.Helper()
	home, bin := t.TempDir(), t.TempDir()
	programs := map[string]string{}
	if manager {
		// The last is how a system with systemd is known that does not run it now.
		programs = map[string]string{"systemctl": standIn, "loginctl": "#!/bin/sh\necho \"loginctl $@\" >> \"$STAND_IN/calls\"\n", "rpm-ostree": "#!/bin/sh\n"}
	}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := bin
	if manager {
		path += ":/usr/bin:/bin"
	}
	return &managedHome{home, []string{asProgram + "=1", "HOME=" + home, "STAND_IN=" + home, "PATH=" + path}}
}

// run runs the agent and returns what it prints and its exit code.
func (m *managedHome) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = m.env
	output, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(output), cmd.ProcessState.ExitCode()
}

func (m *managedHome) want(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	if output, got := m.run(t, args...); got != code || !strings.Contains(output, text) {
		t.Errorf("eclitunnel %s: exit code %d, want %d and %q: %s", strings.Join(args, " "), got, code, text, output)
	}
}

func (m *managedHome) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.home, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestService_OfAUserFromInstallToUninstall(t *testing.T) {
	t.Parallel() // Nothing starts an agent, which the commands wait for.
	m := newHome(t, true)
	m.want(t, 6, "not enrolled", "service", "install", "--user")
	config := agent.Config{PanelURL: "https://panel.example.com", DeviceID: uuid.New(), Token: "token", Name: "home"}
	path := filepath.Join(m.home, ".config", "eclitunnel", "config.json")
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "not installed", "service", "status", "--user")
	m.want(t, 1, "not installed", "service", "start", "--user")
	m.want(t, 0, "runs as a service", "service", "install", "--user")
	m.want(t, 0, "The service runs", "service", "status", "--user")
	unit := m.file(t, ".config/systemd/user/eclitunnel.service")
	if !strings.Contains(unit, " --config "+path+" run\n") || !strings.Contains(unit, "WantedBy=default.target\n") {
		t.Errorf("the unit: %s", unit)
	}
	away := filepath.Join(m.home, "away")
	if err := os.WriteFile(away, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "is installed, and systemd does not tell", "service", "status", "--user")
	if err := os.Remove(away); err != nil {
		t.Fatal(err)
	}
	m.want(t, 0, "stopped", "service", "stop", "--user")
	var state serviceState
	output, code := m.run(t, "--json", "service", "status", "--user")
	if err := json.Unmarshal([]byte(output), &state); err != nil || code != 0 || state != (serviceState{Installed: true}) {
		t.Errorf("stopped: %d %s (%v)", code, output, err)
	}
	// Again, with what is there then: it runs afterwards.
	m.want(t, 0, "runs as a service", "service", "install", "--user")
	m.want(t, 0, "The service runs", "service", "status", "--user")
	m.want(t, 0, "stays enrolled", "service", "uninstall", "--user")
	m.want(t, 0, "not installed", "service", "uninstall", "--user")
	if _, err := os.Stat(filepath.Join(m.home, ".config/systemd/user/eclitunnel.service")); !os.IsNotExist(err) {
		t.Errorf("the unit is left: %v", err)
	}
	if calls := m.file(t, "calls"); !strings.Contains(calls, "loginctl enable-linger") || !strings.Contains(calls, "enable --user eclitunnel.service") {
		t.Errorf("calls: %s", calls)
	}
	if _, err := agent.LoadConfig(path); err != nil {
		t.Errorf("the enrollment: %v", err)
	}
}

func TestService_SaysWhatIsMissing(t *testing.T) {
	m := newHome(t, true)
	m.env = append(m.env, "SUDO_UID=1000")
	if os.Geteuid() == 0 {
		m.want(t, 2, "leave sudo out", "service", "install", "--user")
	} else {
		m.want(t, 2, "use sudo, or --user", "service", "install")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil { // As in a container.
		newHome(t, false).want(t, 1, "no service manager", "service", "status", "--user")
	}
}

// TestUnit_IsThatOfThePackages: what an installed service restricts is what the packages'
// unit restricts, but for what depends on its user.
func TestUnit_IsThatOfThePackages(t *testing.T) {
	settings := func(text string) map[string]bool {
		lines := map[string]bool{}
		for _, line := range regexp.MustCompile(`(?m)^[A-Z]\w+=.*$`).FindAllString(text, -1) {
			lines[line] = true
		}
		return lines
	}
	packaged := settings(systemd.AgentUnit)
	own := unit{program: "/opt/my tools/eclitunnel", args: []string{"--config", "/home/ada/100%/$x.json", "run"}, config: "/home/ada/100%/$x.json", user: "ada"}
	depends := regexp.MustCompile(`^(ExecStart|User|Group|StateDirectory|StateDirectoryMode|ProtectHome|Environment=ECLITUNNEL_CONFIG)`)
	text := own.text()
	for line := range packaged {
		if !depends.MatchString(line) && !settings(text)[line] {
			t.Errorf("the service lacks %s", line)
		}
	}
	for _, line := range []string{
		`ExecStart="/opt/my tools/eclitunnel" --config "/home/ada/100%%/$$x.json" run`, "User=ada",
		`ReadWritePaths="/home/ada/100%%"`, "ProtectHome=read-only",
	} {
		if !settings(text)[line] {
			t.Errorf("the service lacks %s: %s", line, text)
		}
	}
	own.autoUpdate = true
	if text := own.text(); !settings(text)["Environment=ECLITUNNEL_AUTO_UPDATE=true"] || !settings(text)[`ReadWritePaths="/home/ada/100%%" "/opt/my tools"`] {
		t.Errorf("updates itself: %s", text)
	}
	own.user, own.autoUpdate = "", false
	if root := own.text(); strings.Contains(root, "\nUser=") || strings.Contains(root, "CapabilityBoundingSet=\n") || !strings.Contains(root, "RuntimeDirectory=eclitunnel\n") {
		t.Errorf("as root: %s", root)
	}
	own.perUser = true
	if text := own.text(); strings.Contains(text, "ProtectSystem") || strings.Contains(text, "User=") || strings.Contains(text, "network-online") {
		t.Errorf("of a user: %s", text)
	}
}
