package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func TestRun_SecondOneOfADeviceEndsAndSaysWhy(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	config := m.env["ECLITUNNEL_CONFIG"]
	m.background("connected", "run")

	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(config, link); err != nil {
		t.Skip(err) // Windows permits it to few.
	}
	dirLink := filepath.Join(t.TempDir(), "dir")
	if err := os.Symlink(filepath.Dir(config), dirLink); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(config))
	for name, args := range map[string][]string{
		"the same path":         {},
		"a relative path":       {"--config", "config.json"},
		"a link":                {"--config", link},
		"a link to a directory": {"--config", filepath.Join(dirLink, "config.json")},
		"another state":         {"--state-dir", t.TempDir()},
	} {
		o := m.run(append([]string{"run"}, args...)...)
		o.want(t, 13, "already runs on this machine", fmt.Sprintf("pid %d", os.Getpid()), "--standby")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	m.env["ECLITUNNEL_TOKEN"], m.env["ECLITUNNEL_PANEL"] = p.token, p.URL
	m.run("run", "--state-dir", filepath.Dir(config)).want(t, 13, "already runs")
	if n := p.connections(); n != 1 {
		t.Errorf("%d connections, want those of the first alone", n)
	}
}

func TestRun_DevicesRunBesideEachOther(t *testing.T) {
	p, q := newPanel(t), newPanel(t)
	m := enrolledAt(t, p)
	m.background("connected", "run")
	other := agent.Config{PanelURL: q.URL, DeviceID: q.device, Name: "other", Token: q.token}
	path := filepath.Join(filepath.Dir(m.env["ECLITUNNEL_CONFIG"]), "other.json")
	if err := other.Save(path); err != nil {
		t.Fatal(err)
	}
	m.background("connected", "run", "--config", path)
	// A device that was replaced by another enrollment.
	other.DeviceID = uuid.New()
	other.Token = deviceToken(other.DeviceID, types.DeviceKindClient)
	if err := other.Save(path); err != nil {
		t.Fatal(err)
	}
	m.background("connected", "run", "--config", path)
}

func TestRun_StandbyServesOnceTheOtherEnds(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	for _, args := range [][]string{{"run", "--standby"}, {"run", "--standby", "--json"}} {
		first := m.background("connected", "run")
		waiting := "standing by: an agent of this device already runs"
		if len(args) == 3 {
			waiting = `"type":"standby"`
		}
		m.background(waiting, args...).stop().want(t, 0)
		second := m.background(waiting, args...)
		before := p.connections()
		first.stop().want(t, 0)
		await.Until(t, "connection of the second", func() bool { return strings.Contains(second.stdout.String(), "connected") })
		if o := second.stop(); o.code != 0 || strings.Count(o.stdout, waiting) != 1 || p.connections() != before+1 {
			t.Errorf("%v: exit code %d, %s", args, o.code, o.stdout)
		}
	}
}

func TestRun_ADeadProcessLeavesNoLock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	m := enrolledAt(t, newPanel(t))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "run")
	cmd.Env = append(os.Environ(), asProgram+"=1", "ECLITUNNEL_CONFIG="+m.env["ECLITUNNEL_CONFIG"])
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.Contains(line, "connected") {
		t.Fatalf("it prints %q (%v)", line, err)
	}
	m.run("run").want(t, 13, fmt.Sprintf("pid %d", cmd.Process.Pid))
	m.run("status").want(t, 0, fmt.Sprintf("running (pid %d)", cmd.Process.Pid))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	m.background("connected", "run")
}

func TestRun_GoesOnWithoutALock(t *testing.T) {
	p := newPanel(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"no directory": file, "below no directory": filepath.Join(file, "deep"), "none": ""} {
		m := newMachine(t)
		m.env = map[string]string{"ECLITUNNEL_TOKEN": p.token, "ECLITUNNEL_PANEL": p.URL, "ECLITUNNEL_STATE_DIR": dir}
		if dir == "" {
			t.Setenv("HOME", "")
			t.Setenv("XDG_CONFIG_HOME", "")
		}
		o := m.background("connected", "run").stop()
		if n := strings.Count(o.stderr, "will not be noticed"); o.code != 0 || n != 1 {
			t.Errorf("%s: exit code %d, warned %d times: %s", name, o.code, n, o.stderr)
		}
	}
}

func TestStatus_TellsWhatTheAgentOnThisMachineDoes(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	here := func() *agent.InstanceInfo {
		o := m.run("status", "--json")
		o.want(t, 0)
		var st status
		if err := json.Unmarshal([]byte(o.stdout), &st); err != nil {
			t.Fatal(err)
		}
		return st.Here
	}
	if got := here(); got != nil {
		t.Errorf("before the first run: %+v", got)
	}
	running := m.background("connected", "run")
	m.run("status").want(t, 0, "here    running (pid ")
	if got := here(); got == nil || *got != (agent.InstanceInfo{State: agent.InstanceRunning, PID: os.Getpid()}) {
		t.Errorf("running: %+v", got)
	}
	running.stop()
	if got := here(); got == nil || *got != (agent.InstanceInfo{State: agent.InstanceStopped}) {
		t.Errorf("stopped: %+v", got)
	}
	p.mu.Lock()
	p.online, p.closeCode = true, channel.CloseTakenOver
	p.mu.Unlock()
	m.run("status").want(t, 0, "here    not running; another machine runs")
	m.background("standing by: another agent of this device took over (the reason)", "run")
	m.run("status").want(t, 0, "here    standing by (pid ", "gone for a minute")
	if got := here(); got == nil || got.State != agent.InstanceStandby {
		t.Errorf("standing by: %+v", got)
	}
}

func TestStatus_ReadsTheStateDirectoryAsRunDoes(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	m.env = map[string]string{"ECLITUNNEL_TOKEN": p.token, "ECLITUNNEL_PANEL": p.URL, "ECLITUNNEL_STATE_DIR": t.TempDir() + "\r\n"}
	m.background("connected", "run")
	m.run("status").want(t, 0, "here    running (pid ")
}
