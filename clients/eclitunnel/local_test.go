//go:build !windows

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// besideService returns a machine of which the agent runs, and a person there who cannot
// read the enrollment.
func besideService(t *testing.T, p *panel, args ...string) (person *machine, service *background) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "s") // Its path is short: that of a socket has to be.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	m := enrolledAt(t, p)
	m.env["ECLITUNNEL_SOCKET_DIR"] = sockets
	service = m.background("connected", append([]string{"run"}, args...)...)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	person = newMachine(t)
	person.env = map[string]string{"ECLITUNNEL_SOCKET_DIR": sockets}
	return person, service
}

func TestLocal_CommandsOfAPersonGoThroughTheRunningAgent(t *testing.T) {
	p := newPanel(t)
	m, service := besideService(t, p, "--allow", "game.lan")
	m.run("open", "tcp", "game.lan:25565", "--name", "survival", "--wait", "0s").want(t, 0, "survival")
	m.run("list").want(t, 0, "survival", "game.lan:25565")
	m.run("pause", "survival").want(t, 0, "paused")
	m.run("resume", "survival").want(t, 0, "resumed")
	o := m.run("status")
	o.want(t, 0, p.URL, "home", "running (pid ")
	var st status
	if err := json.Unmarshal([]byte(m.run("status", "--json").stdout), &st); err != nil || st.PanelURL != p.URL || st.Here.PID != os.Getpid() {
		t.Errorf("status %+v, %v", st, err)
	}
	if o := m.run("open", "tcp", "other.lan:1", "--wait", "0s"); !strings.Contains(o.stderr, "not on this machine's allow-list") || strings.Contains(o.stderr, "game.lan") {
		t.Errorf("the agent's own allow-list is not minded:\n%s", o.stderr)
	}
	m.run("close", "survival").want(t, 0, "closed")
	m.run("run").want(t, 6, "not enrolled")
	refused := refusal(400, types.CodeInvalidRequest)
	p.refuse = &refused
	m.run("open", "tcp", "1", "--new").want(t, 2, "invalid_request")
	p.refuse = nil
	service.stop()
	m.run("list").want(t, 6, "not enrolled")
}

func TestLocal_AnEnrollmentThatCanBeReadWins(t *testing.T) {
	p, q := newPanel(t), newPanel(t)
	m, _ := besideService(t, p)
	config := agent.Config{PanelURL: q.URL, DeviceID: q.device, Name: "own", Token: q.token}
	path, err := agent.DefaultConfigPath()
	if err != nil {
		t.Fatal(err)
	}
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	m.run("status").want(t, 0, q.URL)
	m.env["ECLITUNNEL_CONFIG"] = filepath.Join(t.TempDir(), "none.json")
	m.run("status").want(t, 6, "not enrolled")
}

func TestLocal_SeveralAgentsAreToldApart(t *testing.T) {
	p, q := newPanel(t), newPanel(t)
	m, _ := besideService(t, p)
	other := enrolledAt(t, q)
	other.env["ECLITUNNEL_SOCKET_DIR"] = m.env["ECLITUNNEL_SOCKET_DIR"]
	other.background("connected", "run")
	m.run("status").want(t, 2, "several agents", p.device.String(), q.device.String(), "--socket-dir")
	m.run("status", "--panel", q.URL).want(t, 0, q.URL)
	dirs, err := filepath.Glob(filepath.Join(m.env["ECLITUNNEL_SOCKET_DIR"], "*"))
	if err != nil || len(dirs) != 2 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		m.run("status", "--socket-dir", dir).want(t, 0, "home")
	}
}

func TestEnroll_RecordsWhoHasCalledSudo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root calls sudo for others")
	}
	for uid, want := range map[string]string{"1000": "1000", "0": "", "": "", "x": ""} {
		a := &app{env: func(name string) (string, bool) { return map[string]string{"SUDO_UID": uid}[name], true }}
		if got := a.owner(); got != want {
			t.Errorf("SUDO_UID=%s records %q, want %q", uid, got, want)
		}
	}
}
