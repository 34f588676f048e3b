package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var units = []string{"eclitunneld.service", "eclitunnel.service"}

// install copies a unit and its drop-ins to a directory of its own, with a program
// that this machine has in place of ours.
func install(t *testing.T, unit string) (path string) {
	t.Helper()
	dir := t.TempDir()
	program := strings.TrimSuffix(unit, ".service")
	text := read(t, "deploy", "systemd", unit)
	installed := strings.Replace(text, "ExecStart=/usr/bin/"+program+" ", "ExecStart=/bin/true ", 1)
	if installed == text {
		t.Errorf("%s does not start /usr/bin/%s", unit, program)
	}
	path = filepath.Join(dir, unit)
	write(t, path, installed)
	dropIns, err := os.ReadDir(filepath.Join(root, "deploy", "systemd", unit+".d"))
	if err != nil || len(dropIns) == 0 {
		t.Fatalf("drop-ins of %s: %d, %v", unit, len(dropIns), err)
	}
	for _, dropIn := range dropIns {
		write(t, filepath.Join(dir, unit+".d", dropIn.Name()), read(t, "deploy", "systemd", unit+".d", dropIn.Name()))
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnits_SystemdAcceptsThemWithEveryDropIn(t *testing.T) {
	for _, unit := range units {
		if said := run(t, ".", "systemd-analyze", "verify", install(t, unit)); strings.Contains(said, unit) {
			t.Errorf("systemd-analyze verify: %s", said)
		}
	}
}

func TestUnits_AreConfined(t *testing.T) {
	for _, unit := range units {
		// Ten times the exposure level, of which systemd calls 5 medium and 2 well
		// confined.
		run(t, ".", "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", install(t, unit))
	}
}

// crash makes this test's program end as ours do when a goroutine panics.
const crash = "ECLITUNNEL_TEST_CRASH"

func TestUnits_StartAgainAfterACrash(t *testing.T) {
	if os.Getenv(crash) != "" {
		go panic("as by a mistake in a program")
		select {}
	}
	for _, unit := range units {
		text := read(t, "deploy", "systemd", unit)
		// A crash may not leave memory on a disk.
		child := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -c 0 && exec "$0" -test.run "$1"`, os.Args[0], "^"+t.Name()+"$")
		child.Env = []string{crash + "=1"}
		for _, line := range regexp.MustCompile(`(?m)^Environment=(.*)$`).FindAllStringSubmatch(text, -1) {
			child.Env = append(child.Env, strings.Fields(line[1])...)
		}
		_ = child.Run()
		code := child.ProcessState.ExitCode() // -1 of a signal.
		never := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindStringSubmatch(text)
		if never == nil || slices.Contains(strings.Fields(never[1]), strconv.Itoa(code)) || code == 0 {
			t.Errorf("%s is not started again after a crash, which exits with %d", unit, code)
		}
		if !strings.Contains(text, "\nLimitCORE=0\n") {
			t.Errorf("%s writes its secrets to a core dump", unit)
		}
	}
}

func TestUnits_RunAsUsersThatAreMade(t *testing.T) {
	users := read(t, "deploy", "systemd", "eclitunnel.sysusers")
	for _, unit := range units {
		text := read(t, "deploy", "systemd", unit)
		user := regexp.MustCompile(`(?m)^User=(\S+)$`).FindStringSubmatch(text)
		if user == nil || !strings.Contains(users, "\nu "+user[1]+" ") {
			t.Errorf("%s runs as %q, whom eclitunnel.sysusers does not make", unit, user)
		}
		for _, want := range []string{"\nRestart=always\n", "\nStateDirectory=" + user[1] + "\n", "\nNoNewPrivileges=yes\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", unit, want)
			}
		}
	}
}
