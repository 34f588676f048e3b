package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// hosts are public hosts of tunnel servers, with what is said about them.
var hosts = map[string]struct {
	server      types.TunnelServer
	says, warns string
}{
	"given":   {types.TunnelServer{PublicHost: "fra1.example.com"}, "fra1.example.com", ""},
	"guessed": {types.TunnelServer{PublicHost: "198.51.100.7", PublicHostGuessed: true}, "198.51.100.7 (guessed", ""},
	"IPv6": {types.TunnelServer{
		PublicHost: "2001:db8::7", PublicHostGuessed: true,
		PublicHostWarning: nullable.NewNullableWithValue("players without IPv6 cannot join"),
	}, "2001:db8::7 (guessed", "warning: players without IPv6"},
}

func TestCommands_ShowThePublicHostOfATunnelServer(t *testing.T) {
	for name, test := range hosts {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			p.server = &test.server
			m := tunnelServerAt(t, p)
			p.polls = []answer{approved(p.token)}
			m.env["ECLITUNNEL_SESSION_TOKEN"] = "session"
			enroll := []string{"enroll", "--panel", p.URL, "--force", "--kind", "server"}
			check := func(o outcome) {
				t.Helper()
				o.want(t, 0, test.says, test.warns)
				said := o.stdout + o.stderr
				if strings.Contains(said, "(guessed") != test.server.PublicHostGuessed || strings.Contains(said, "warning") != (test.warns != "") {
					t.Errorf("printed %q", said)
				}
			}
			check(m.run(enroll...))
			check(m.run("status"))
			check(m.background(test.says, "run").stop())
			o := m.run(append(enroll, "--json")...)
			o.want(t, 0, test.warns)
			var last enrolled
			lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Server == nil || last.Server.PublicHost != test.server.PublicHost {
				t.Errorf("printed %q: %v", o.stdout, err)
			}
		})
	}
}

func TestEnroll_DoesNotFailForThePublicHost(t *testing.T) {
	p := newPanel(t)
	m := tunnelServerAt(t, p)
	p.token = deviceToken(uuid.New(), types.DeviceKindServer) // The panel answers "not found".
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--panel", p.URL, "--force", "--kind", "server").want(t, 0, "Enrolled as")
}

func TestOpen_PrintsAddressesForGamesThatTakeNoName(t *testing.T) {
	const both = ": 203.0.113.7:25000, [2001:db8::7]:25000"
	for args, want := range map[string]string{
		"tcp+udp 19132": "play.test as an IP address, for games that take no name, such as Minecraft Bedrock Edition" + both,
		"udp 19132":     both,
		"udp 2456-2458": ": 203.0.113.7, 2001:db8::7\n",
		"tcp 25565":     "",
		"udp 1 --json":  `"publicAddresses":["203.0.113.7"`,
	} {
		t.Run(args, func(t *testing.T) {
			p := newPanel(t)
			p.addresses = []string{"203.0.113.7", "2001:db8::7"}
			m := enrolledAt(t, p)
			o := m.run(append([]string{"open"}, strings.Fields(args)...)...)
			o.want(t, 0)
			if !strings.Contains(o.stdout, want) || want == "" && strings.Contains(o.stdout, "203.0.113.7") {
				t.Errorf("printed %q, want %q", o.stdout, want)
			}
			if listed := m.run("list"); strings.Contains(args, "udp") && strings.Count(listed.stdout, "IP address") != 1 {
				t.Errorf("list printed %q", listed.stdout)
			}
		})
	}
	p := newPanel(t) // Without addresses, as while the name was not looked up.
	m := enrolledAt(t, p)
	if o := m.run("open", "udp", "19132"); strings.Contains(o.stdout, "IP address") {
		t.Errorf("printed %q", o.stdout)
	}
}

func TestRun_PrintsAddressesForGamesThatTakeNoName(t *testing.T) {
	for _, test := range []struct {
		protocol  types.Protocol
		host      string
		addresses []string
		want      string
	}{
		{types.ProtocolUDP, "play.test", []string{"203.0.113.7", "2001:db8::7"}, "(IP address: 203.0.113.7:19132, [2001:db8::7]:19132)"},
		{types.ProtocolUDP, "203.0.113.7", []string{"203.0.113.7"}, ""},
		{types.ProtocolUDP, "play.test", nil, ""},
		{types.ProtocolTCP, "play.test", []string{"203.0.113.7"}, ""},
	} {
		var out strings.Builder
		d := &display{app: &app{stdout: &out}}
		d.line(agent.Event{Type: agent.EventAllocationReady, Allocation: &agent.EventPort{
			Protocol: test.protocol, PublicAddress: test.host + ":19132", LocalAddress: "127.0.0.1:19132", PublicAddresses: test.addresses,
		}})
		if !strings.Contains(out.String(), test.want) || test.want == "" && strings.Contains(out.String(), "IP address") {
			t.Errorf("printed %q, want %q", out.String(), test.want)
		}
	}
}
