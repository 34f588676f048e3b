package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestEnroll_StoresWhichPortsMayBeReached(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--panel", p.URL, "--allow", "192.168.1.10:25565", "--allow", "[fd00::5]:2456-2458", "--allow-ports", "25565,19132").want(t, 0)
	if c := m.config(); !slices.Equal(c.Allow, []string{"192.168.1.10:25565", "[fd00::5]:2456-2458"}) || !slices.Equal(c.AllowPorts, []string{"25565", "19132"}) {
		t.Errorf("config %+v", c)
	}
	m.stdin = p.token
	m.run("enroll", "--token-file", "-", "--allow-ports", "2456-2458,25565", "--allow", "game.lan:1").want(t, 0)
	if c := m.config(); !slices.Equal(c.AllowPorts, []string{"25565", "19132", "2456-2458"}) || len(c.Allow) != 3 {
		t.Errorf("config %+v", c)
	}
	m.stdin = samplePassword
	m.run("enroll", "--renew", "--user", "ada@panel.test", "--allow-ports", "7777").want(t, 0)
	if c := m.config(); !slices.Equal(c.AllowPorts, []string{"25565", "19132", "2456-2458", "7777"}) || len(c.Allow) != 3 {
		t.Errorf("config %+v", c)
	}
}

func TestRun_RefusesPortsThatAreNotAllowed(t *testing.T) {
	p := newPanel(t)
	for i, local := range []types.ClientAllocation{
		{LocalHost: "127.0.0.1", LocalPort: 22},
		{LocalHost: "game.localhost", LocalPort: 25566, Protocol: types.ProtocolUDP},
		{LocalHost: "::1", LocalPort: 2459},
		{LocalHost: "192.168.1.10", LocalPort: 25566},
		{LocalHost: "game.lan", LocalPort: 80, Protocol: types.ProtocolUDP},
	} {
		local.ID, local.ServerID, local.PublicAddress = int64(i+1), uuid.New(), "play.test:25565"
		if local.Protocol == "" {
			local.Protocol = types.ProtocolTCP
		}
		p.assigned = append(p.assigned, local)
	}
	for name, c := range map[string]struct {
		config  string // More of the config file.
		args    []string
		refused []string
	}{
		"of an old config": {
			`"allow": ["game.lan", "192.168.1.0/24"]`, nil, nil,
		},
		"of the enrollment": {
			`"allow": ["game.lan:25565", "192.168.1.10:25565"], "allowPorts": ["25565", "2456-2458"]`, nil,
			[]string{
				"--allow-ports 25565,2456-2458,22", "--allow-ports 25565,2456-2458,25566", "--allow-ports 25565,2456-2458,2459",
				"--allow 192.168.1.10:25566", "--allow game.lan:80",
			},
		},
		"of the enrollment and the command": {
			`"allow": ["game.lan:25565", "192.168.1.10:25565"], "allowPorts": ["25565"]`,
			[]string{"--allow", "192.168.1.0/24:25566", "--allow", "game.lan:80-90", "--allow-ports", "22,25566"},
			[]string{"--allow-ports 25565,22,25566,2459"},
		},
		"of the command alone": {
			`"allow": ["game.lan", "192.168.1.0/24"]`, []string{"--allow-ports", "22,2459"},
			[]string{"--allow-ports 22,2459,25566"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := enrolledAt(t, p)
			config, err := os.ReadFile(m.env["ECLITUNNEL_CONFIG"])
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(config), `"allow": null`, c.config, 1)
			if err := os.WriteFile(m.env["ECLITUNNEL_CONFIG"], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			words := "connected"
			if len(c.refused) > 0 {
				words = c.refused[len(c.refused)-1]
			}
			o := m.background(words, append([]string{"run"}, c.args...)...).stop()
			o.want(t, 0, c.refused...)
			if n := strings.Count(o.stdout, "failed "); n != len(c.refused) {
				t.Errorf("%d ports are refused, want %d:\n%s", n, len(c.refused), o.stdout)
			}
		})
	}
}

func TestOpen_WarnsOfPortsThatAreNotAllowed(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p, "game.lan:2456-2458", "192.168.1.0/24")
	c := m.config()
	c.AllowPorts = []string{"25565", "19132"}
	if err := c.Save(m.env["ECLITUNNEL_CONFIG"]); err != nil {
		t.Fatal(err)
	}
	for target, flag := range map[string]string{
		"25565": "", "127.0.0.1:19132": "", "game.lan:2456-2458": "", "192.168.1.10:22": "",
		"22":                 "eclitunnel run --allow-ports 25565,19132,22\n",
		"localhost:2456":     "eclitunnel run --allow-ports 25565,19132,2456\n",
		"[::1]:25565-25567":  "eclitunnel run --allow-ports 25565,19132,25565-25567\n",
		"game.lan:2457-2459": "eclitunnel run --allow game.lan:2457-2459\n",
		"[fd00::5]:25565":    "eclitunnel run --allow [fd00::5]:25565\n",
		"192.168.2.10:25565": "eclitunnel run --allow 192.168.2.10:25565\n",
	} {
		o := m.run("open", "tcp", target)
		o.want(t, 0, flag)
		if flag == "" && strings.Contains(o.stderr, "allow") {
			t.Errorf("%s: warned %q although it is allowed", target, o.stderr)
		}
	}
}
