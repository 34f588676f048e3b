package main

import (
	"os"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

// elsewhere returns the http address of a panel at a name of another machine.
func elsewhere(t *testing.T, p *panel) string {
	t.Helper()
	linetest.ResolveAll(t, "127.0.0.1")
	return strings.Replace(p.URL, "127.0.0.1", "panel.test", 1)
}

const refusesPlainHTTP = "is not encrypted"

func TestInsecure_EverySecretNeedsTheFlag(t *testing.T) {
	p := newPanel(t)
	url := elsewhere(t, p)
	for name, c := range map[string]struct {
		args  []string
		env   map[string]string
		stdin string
	}{
		"enroll":                 {args: []string{"enroll"}},
		"enroll with a login":    {args: []string{"enroll", "--user", "ada@panel.test"}, stdin: samplePassword},
		"enroll with a session":  {args: []string{"enroll"}, env: map[string]string{"ECLITUNNEL_SESSION_TOKEN": sampleSession}},
		"install a token":        {args: []string{"enroll", "--token-file", "-"}, stdin: p.token},
		"list":                   {args: []string{"list"}, env: map[string]string{"ECLITUNNEL_TOKEN": p.token}},
		"open":                   {args: []string{"open", "tcp", "1"}, env: map[string]string{"ECLITUNNEL_TOKEN": p.token}},
		"status from a file":     {args: []string{"status", "--token-file", "-"}, stdin: p.token},
		"run":                    {args: []string{"run"}, env: map[string]string{"ECLITUNNEL_TOKEN": p.token}},
		"an address in capitals": {args: []string{"list", "--panel", strings.ToUpper(url)}, env: map[string]string{"ECLITUNNEL_TOKEN": p.token}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.stdin, m.env["ECLITUNNEL_PANEL"] = c.stdin, url
			for variable, value := range c.env {
				m.env[variable] = value
			}
			m.run(c.args...).want(t, 2, refusesPlainHTTP, "https", "--insecure")
			if _, err := os.Stat(m.env["ECLITUNNEL_CONFIG"]); err == nil {
				t.Error("a config was stored")
			}
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != "" || p.started.Name != "" || p.hellos > 0 {
		t.Error("the panel was called")
	}
}

func TestInsecure_AnEnrollmentKeepsTheDecisionForItsPanel(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	url := elsewhere(t, p)
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--panel", url+"/", "--insecure").want(t, 0)
	if c := m.config(); !c.Insecure || c.PanelURL != url {
		t.Errorf("config %+v", c)
	}
	for _, args := range [][]string{{"list"}, {"list", "--panel", url + "/"}, {"status"}} {
		if o := m.run(args...); o.code != 0 || o.stderr != "" {
			t.Errorf("%v: exit code %d, %s", args, o.code, o.stderr)
		}
	}
	if o := m.background("connected", "run").stop(); o.code != 0 || o.stderr != "" {
		t.Errorf("run: exit code %d, %s", o.code, o.stderr)
	}
	m.stdin = p.token
	m.run("enroll", "--token-file", "-").want(t, 0)
	m.stdin = samplePassword
	m.run("enroll", "--renew", "--user", "ada@panel.test").want(t, 0)
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--force").want(t, 0)
	if c := m.config(); !c.Insecure {
		t.Errorf("config %+v", c)
	}
	other := elsewhere(t, newPanel(t))
	for _, args := range [][]string{{"list"}, {"enroll", "--force"}, {"enroll", "--renew", "--user", "ada@panel.test"}, {"run"}} {
		m.run(append(args, "--panel", other)...).want(t, 2, refusesPlainHTTP)
	}
	m.run("enroll", "--renew", "--user", "ada@panel.test", "--panel", p.URL).want(t, 0)
	if c := m.config(); c.Insecure || c.PanelURL != p.URL {
		t.Errorf("config of a panel on this machine: %+v", c)
	}
}

func TestInsecure_AnEarlierEnrollmentGoesOnWithAWarning(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	c := m.config()
	c.PanelURL = elsewhere(t, p)
	if err := c.Save(m.env["ECLITUNNEL_CONFIG"]); err != nil {
		t.Fatal(err)
	}
	once := func(o outcome) {
		t.Helper()
		o.want(t, 0, "eclitunnel enroll --renew --panel https://", "--insecure")
		if n := strings.Count(o.stderr, "warning"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, o.stderr)
		}
	}
	once(m.run("list"))
	once(m.run("open", "tcp", "25565", "--panel", c.PanelURL))
	once(m.background("connected", "run").stop())
	if o := m.run("list", "--insecure"); o.code != 0 || o.stderr != "" {
		t.Errorf("exit code %d, %s", o.code, o.stderr)
	}
	m.env["ECLITUNNEL_INSECURE"] = "true"
	if o := m.background("connected", "run").stop(); o.code != 0 || o.stderr != "" {
		t.Errorf("run: exit code %d, %s", o.code, o.stderr)
	}
	m.env["ECLITUNNEL_INSECURE"] = ""
	// A password is not sent without a decision.
	m.stdin = samplePassword
	m.run("enroll", "--renew", "--user", "ada@panel.test").want(t, 2, refusesPlainHTTP)
	m.run("enroll", "--renew", "--user", "ada@panel.test", "--insecure").want(t, 0)
	if o := m.run("list"); o.code != 0 || o.stderr != "" {
		t.Errorf("exit code %d, %s", o.code, o.stderr)
	}
}

func TestInsecure_ThisMachineNeedsNoFlag(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	linetest.ResolveAll(t, "192.0.2.1") // Nobody is asked.
	for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST.", "panel.localhost", "[::ffff:127.0.0.1]"} {
		if o := m.run("list", "--panel", strings.Replace(p.URL, "127.0.0.1", host, 1)); o.code != 0 || o.stderr != "" {
			t.Errorf("%s: exit code %d, %s", host, o.code, o.stderr)
		}
	}
}
