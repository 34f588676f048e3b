package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestParseTunnels(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"minecraft=tcp:25565,voice=udp:24454":  "minecraft tcp 127.0.0.1:25565x1 public 0; voice udp 127.0.0.1:24454x1 public 0",
		"\r\n minecraft = tcp:25565 \r\n,\n\n": "minecraft tcp 127.0.0.1:25565x1 public 0",
		"tcp:25565->game:25566":                "tcp-25566 tcp game:25566x1 public 25565",
		"TCP+UDP:game:19132":                   "tcp+udp-19132 tcp+udp game:19132x1 public 0",
		"v=udp:2456-2458":                      "v udp 127.0.0.1:2456x3 public 0",
		"udp:2456-2458":                        "udp-2456-2458 udp 127.0.0.1:2456x3 public 0",
		"udp:24000-24002 -> [fd00::5]:1-3":     "udp-1-3 udp fd00::5:1x3 public 24000",
		"udp:24000->2456-2458":                 "udp-2456-2458 udp 127.0.0.1:2456x3 public 24000",
	} {
		specs, err := parseTunnels(text)
		var got []string
		for _, s := range specs {
			got = append(got, fmt.Sprintf("%s %s %s:%dx%d public %d", s.name, s.protocol, s.target.host, s.target.first, s.target.count, s.public))
		}
		if err != nil || strings.Join(got, "; ") != want {
			t.Errorf("%q: %s, %v", text, strings.Join(got, "; "), err)
		}
	}
	for text, words := range map[string]string{
		"25565":                             "of the form",
		"sctp:1":                            `"sctp" is not tcp`,
		"minecraft=25565":                   "of the form",
		"tcp:":                              "not a port",
		"tcp:70000":                         "between 1 and 65535",
		"tcp:->25565":                       "in front of ->",
		"tcp:x->25565":                      "in front of ->",
		"tcp:1-2->25565":                    "as many public ports",
		"tcp:65535->1-2":                    "end at 65535",
		"tcp:1-99":                          "at most 16",
		"=tcp:1":                            "1 to 100 characters",
		strings.Repeat("x", 101) + "=tcp:1": "1 to 100 characters",
		"a=tcp:1,a=udp:1":                   "same name a",
		"tcp:1,tcp:game:1":                  "same name tcp-1",
		"tcp:ga me:1":                       "ga me",
	} {
		m := newMachine(t)
		m.env["ECLITUNNEL_TUNNELS"] = text
		m.run("run").want(t, 2, "--tunnels", words)
	}
}

func TestAllowTargets_AllowsTheTargetsOfTunnelsAlone(t *testing.T) {
	specs, err := parseTunnels("a=tcp:game:25565,b=udp:[fd00::5]:1-3,c=tcp:8080,d=tcp:localhost:9090")
	if err != nil {
		t.Fatal(err)
	}
	entries, ownPorts := allowTargets(specs, []string{"10.0.0.0/8"}, []string{"22"})
	list, err := agent.ParseAllowList(entries, ownPorts)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{
		"game 25565": true, "game 25566": false, "fd00::5 3": true, "fd00::5 4": false, "other 25565": false, "10.1.1.1 1": true,
		"127.0.0.1 8080": true, "127.0.0.1 9090": true, "127.0.0.1 22": true, "127.0.0.1 23": false,
	} {
		var host string
		var port int
		if _, err := fmt.Sscan(target, &host, &port); err != nil {
			t.Fatal(err)
		}
		if got := list.Check(host, port) == nil; got != want {
			t.Errorf("%s: allowed %t", target, got)
		}
	}
	if _, ownPorts = allowTargets(specs, nil, nil); ownPorts != nil {
		t.Errorf("this machine is restricted to %v", ownPorts)
	}
}

// openPorts are the allocations of p, as the tests name them.
func (p *panel) openPorts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ports []string
	for _, o := range p.allocations {
		ports = append(ports, fmt.Sprintf("%s %s %d->%s", o.Name, o.Protocol, o.Port, localAddress(o)))
	}
	slices.Sort(ports)
	return ports
}

// runTunnels runs the agent with --tunnels until the ports of p are those wanted.
func (m *machine) runTunnels(p *panel, tunnels string, want ...string) {
	m.t.Helper()
	m.env["ECLITUNNEL_TUNNELS"] = tunnels
	agent := m.background("connected to", "run")
	slices.Sort(want)
	await.Within(m.t, 20*time.Second, "the ports "+strings.Join(want, ", "), func(context.Context) (bool, error) {
		got := p.openPorts()
		if !slices.Equal(got, want) {
			return false, fmt.Errorf("there are %q", got)
		}
		return true, nil
	})
	agent.stop().want(m.t, 0)
}

func TestRun_ReconcilesTunnelsByName(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	p.allocations = []types.Allocation{{
		ID: 90, Name: "other", Protocol: types.ProtocolTCP, Port: 30000, LocalHost: "127.0.0.1", LocalPort: 22, Enabled: true,
		Options: types.AllocationOptions{},
	}}
	const other = "other tcp 30000->127.0.0.1:22"
	mc, voice := "mc tcp 25000->127.0.0.1:25565", "voice udp 25001->127.0.0.1:24454"
	m.runTunnels(p, "mc=tcp:25565,voice=udp:24454", other, mc, voice)
	m.runTunnels(p, "mc=tcp:25565,voice=udp:24454", other, mc, voice)
	// What is no longer listed stays; a game that moved keeps its public port.
	m.runTunnels(p, "mc=tcp:game:25566", other, "mc tcp 25000->game:25566", voice)
	m.runTunnels(p, "mc=tcp:26000->25565", other, "mc tcp 26000->127.0.0.1:25565", voice)
	// Another protocol joins on the same public port, and one leaves.
	m.runTunnels(p, "mc=tcp:25565,voice=tcp+udp:24454", other, "mc tcp 26000->127.0.0.1:25565", voice, "voice tcp 25001->127.0.0.1:24454")
	m.runTunnels(p, "mc=tcp:25565,voice=tcp:24454", other, "mc tcp 26000->127.0.0.1:25565", "voice tcp 25001->127.0.0.1:24454")
	// A port becomes a run.
	m.runTunnels(p, "mc=tcp:1-2,voice=tcp:24454", other, "mc tcp 26000->127.0.0.1:1", "mc tcp 26001->127.0.0.1:2", "voice tcp 25001->127.0.0.1:24454")
}

func TestRun_KeepsTryingToOpenATunnel(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	p.allocations = []types.Allocation{{ID: 90, Name: "other", Protocol: types.ProtocolTCP, Port: 25565, LocalHost: "127.0.0.1", LocalPort: 22}}
	m.env["ECLITUNNEL_TUNNELS"] = "first=tcp:25565->1,second=tcp:2"
	agent := m.background("connected to", "run")
	await.Within(t, 20*time.Second, "the second port", func(context.Context) (bool, error) { return len(p.openPorts()) == 2, nil })
	p.mu.Lock()
	p.allocations = p.allocations[1:] // The port becomes free.
	p.mu.Unlock()
	await.Within(t, 20*time.Second, "the first port", func(context.Context) (bool, error) { return len(p.openPorts()) == 2, nil })
	o := agent.stop()
	o.want(t, 0, "name=first", "port_taken")
	if n := strings.Count(o.stderr, "cannot be opened"); n != 1 {
		t.Errorf("%d lines:\n%s", n, o.stderr)
	}
}

func TestReconcile_LeavesNamesThatAreNotItsOwnAlone(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	run := nullable.NewNullableWithValue(uuid.New())
	p.allocations = []types.Allocation{
		{ID: 1, Name: "mc", Protocol: types.ProtocolTCP, Port: 25000, LocalHost: "127.0.0.1", LocalPort: 1, RunID: nullable.NewNullNullable[uuid.UUID]()},
		{ID: 2, Name: "mc", Protocol: types.ProtocolTCP, Port: 25001, LocalHost: "127.0.0.1", LocalPort: 2, RunID: run},
	}
	before := p.openPorts()
	m.env["ECLITUNNEL_TUNNELS"] = "mc=tcp:3"
	lists := 0
	p.onList = func() *answer { lists++; return nil }
	o := m.background("connected to", "run")
	await.Within(t, 20*time.Second, "another attempt", func(context.Context) (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return lists > 1, nil
	})
	o.stop().want(t, 0, "several ports")
	if after := p.openPorts(); !slices.Equal(before, after) {
		t.Errorf("%q became %q", before, after)
	}
	p.server = &types.TunnelServer{}
	p.token = deviceToken(p.device, types.DeviceKindServer)
	m = enrolledAt(t, p)
	m.env["ECLITUNNEL_TUNNELS"] = "mc=tcp:3"
	m.run("run").want(t, 2, "tunnel server")
}
