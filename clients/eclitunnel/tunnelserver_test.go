package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// tunnelServerAt returns a machine that is enrolled with p as a tunnel server.
func tunnelServerAt(t *testing.T, p *panel) *machine {
	t.Helper()
	p.token = deviceToken(p.device, types.DeviceKindServer)
	m := enrolledAt(t, p)
	m.env["ECLITUNNEL_RELAY_LISTEN"], m.env["ECLITUNNEL_BIND_HOST"] = "127.0.0.1:0", "127.0.0.1"
	return m
}

func TestEnroll_AsTunnelServer(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.token = deviceToken(p.device, types.DeviceKindServer)
	p.polls = []answer{approved(p.token)}
	session := filepath.Join(t.TempDir(), "session")
	if err := os.WriteFile(session, []byte("admin's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.env["ECLITUNNEL_REGION"] = "eu"
	m.run("enroll", "--panel", p.URL, "--kind", "server", "--session-token-file", session,
		"--public-host", "fra1.example.com", "--port-range", "30000-30009").want(t, 0, "eclitunnel run")
	if p.session != "Bearer admin's" || p.started.Kind == nil || *p.started.Kind != types.DeviceKindServer {
		t.Errorf("started %+v as %q", p.started, p.session)
	}
	if s := p.started.Server; s == nil || *s.PublicHost != "fra1.example.com" || *s.PortRange != (types.PortRange{First: 30000, Last: 30009}) || *s.Region != "eu" {
		t.Errorf("started with the settings %+v", s)
	}
	for _, ports := range []string{"30000", "x-30000", "30000-"} {
		m.run("enroll", "--panel", p.URL, "--force", "--kind", "server", "--port-range", ports).want(t, 2, "FIRST-LAST")
	}
	if c := m.config(); c.Token != p.token {
		t.Errorf("config %+v", c)
	}
	m.run("enroll", "--panel", p.URL, "--kind", "router").want(t, 2, "kind")
	m.stdin = p.token
	m.run("enroll", "--token-file", "-").want(t, 0)
}

func TestRun_RunsATunnelServer(t *testing.T) {
	p := newPanel(t)
	m := tunnelServerAt(t, p)
	m.background("connected", "run", "--advertised-port", "17443").stop().want(t, 0, "accepting agents on 127.0.0.1:", "connected to "+p.URL+" as home", "stopped")
	first := p.endpoint()
	m.background("connected", "run", "--json").stop().want(t, 0)
	if again := p.endpoint(); first.Port != 17443 || again.Fingerprint != first.Fingerprint {
		t.Errorf("endpoint %+v, then %+v", first, again)
	}
	files, err := os.ReadDir(filepath.Dir(m.env["ECLITUNNEL_CONFIG"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", file.Name(), info.Mode(), err)
		}
	}
	if len(files) != 4 { // Config, key, lock and state.
		t.Errorf("stored %v", files)
	}
}

func TestRun_TunnelServerHasExitCodes(t *testing.T) {
	p := newPanel(t)
	p.closeCode = channel.CloseDeleted
	m := tunnelServerAt(t, p)
	m.run("run").want(t, 5, "deleted on the panel")
	for _, args := range [][]string{
		{"--certificate-file", "chain.pem"}, {"--advertised-port", "65536"}, {"--bind-host", "localhost"},
	} {
		m.run(append([]string{"run"}, args...)...).want(t, 2, strings.TrimSuffix(args[0], "-file"))
	}
	m.run("run", "--certificate-file", "/none", "--certificate-key-file", "/none").want(t, 1, "certificate")
	m.run("run", "--relay-listen", "127.0.0.1:x").want(t, 1, "listen")

	// A container that is given a token and has no home directory.
	m.env = map[string]string{"ECLITUNNEL_TOKEN": p.token, "ECLITUNNEL_PANEL": p.URL, "ECLITUNNEL_RELAY_LISTEN": "127.0.0.1:0"}
	t.Setenv("HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	if _, err := agent.DefaultConfigPath(); err == nil {
		t.Skip("this system has a config directory without HOME")
	}
	m.run("run").want(t, 2, "--state-dir")
	m.run("run", "--state-dir", t.TempDir()).want(t, 5)
}
