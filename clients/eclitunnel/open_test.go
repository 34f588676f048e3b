package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// open opens ports and returns what it printed for programs.
func (m *machine) open(args ...string) []types.Allocation {
	m.t.Helper()
	o := m.run(append([]string{"open", "--json"}, args...)...)
	o.want(m.t, 0)
	var opened []types.Allocation
	if err := json.Unmarshal([]byte(o.stdout), &opened); err != nil || len(opened) == 0 {
		m.t.Fatalf("%v printed %q: %v", args, o.stdout, err)
	}
	return opened
}

func TestOpen_UnderstandsLocalTargets(t *testing.T) {
	m := enrolledAt(t, newPanel(t))
	for args, want := range map[string]struct {
		host        string
		first, last int
		count       int
	}{
		"udp 2456-2458":                        {"127.0.0.1", 2456, 2458, 3},
		"tcp+udp 27015-27020":                  {"127.0.0.1", 27015, 27020, 12},
		"TCP+UDP 10.0.0.5:2456-2458":           {"10.0.0.5", 2456, 2458, 6},
		"TCP game.lan:25565":                   {"game.lan", 25565, 25565, 1},
		"Udp [::1]:7777":                       {"::1", 7777, 7777, 1},
		"udp :7778":                            {"127.0.0.1", 7778, 7778, 1},
		"udp game.lan:7779 --host GAME.lan":    {"game.lan", 7779, 7779, 1},
		"udp 7780-7780 --host fe80::1%eth0":    {"fe80::1%eth0", 7780, 7780, 1},
		"udp 65534-65535 --public-port 65534":  {"127.0.0.1", 65534, 65535, 2},
		"tcp 30000-30015 --proxy-protocol V2 ": {"127.0.0.1", 30000, 30015, types.MaxAllocationCreateCount},
	} {
		opened := m.open(strings.Fields(args)...)
		first, last := opened[0], opened[len(opened)-1]
		if len(opened) != want.count || first.LocalHost != want.host || first.LocalPort != want.first || last.LocalPort != want.last || last.Port-first.Port != want.last-want.first {
			t.Errorf("%s: opened %+v to %+v", args, first, last)
		}
	}
}

func TestOpen_RefusesOtherTargetsInWords(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	for args, words := range map[string]string{
		"udp 2458-2456":                       "reversed; write 2456-2458",
		"udp 2456-2472":                       "17 ports; at most 16",
		"udp 65535-65536":                     "between 1 and 65535",
		"udp 0-3":                             "between 1 and 65535",
		"udp 70000":                           "between 1 and 65535",
		"udp 2456-x":                          "not a port",
		"udp 2456,2458":                       "not a port",
		"udp 2456-2458-2460":                  "not a port",
		"udp 2456-2458 --public-port 65534":   "--public-port must be between 1 and 65533",
		"tcp ::1:25565":                       "brackets",
		"tcp http://127.0.0.1:25565":          "not a local target",
		"tcp 25565:25565":                     "--public-port",
		"tcp game.lan:":                       "not a port",
		"tcp game lan:1":                      "unexpected",
		"tcp a/b:25565":                       "not a URL",
		"tcp 10.0.0.5:1 --host 10.0.0.6":      "another host than --host 10.0.0.6",
		"tcp 25565 --host 10.0.0.5:25565":     "without a port",
		"tcp 25565 --host [::1]":              "without brackets",
		"icmp 25565":                          "tcp+udp",
		"tcp 25565 --proxy-protocol binary":   "none",
		"tcp 25565 --public-port play.test:1": "--public-port",
	} {
		m.run(append([]string{"open"}, strings.Fields(args)...)...).want(t, 2, words)
	}
	if len(p.allocations) != 0 {
		t.Errorf("opened %+v", p.allocations)
	}
}

func TestOpen_OfAnOpenPortAnswersIt(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("udp", "2456-2458", "--name", "valheim")
	m.open("tcp+udp", "19132", "--proxy-protocol", "v2", "--udp-idle", "30s")
	m.open("tcp", "localhost:25565")
	before := len(p.allocations)
	for args, ports := range map[string]int{
		"udp 2456-2458":                       3,
		"UDP 127.0.0.1:2456-2458":             3,
		"udp 2457-2458":                       2,
		"udp 2458 --name valheim":             1,
		"tcp+udp 19132":                       2,
		"udp 19132 --proxy-protocol v2":       1,
		"tcp 19132 --udp-idle 30s":            1,
		"tcp 25565 --host LOCALHOST --wait 0": 1,
	} {
		o := m.run(append([]string{"open", "--json"}, strings.Fields(strings.ReplaceAll(args, "--wait 0", "--wait 0s"))...)...)
		o.want(t, 0, "open already", "--new")
		var opened []types.Allocation
		if err := json.Unmarshal([]byte(o.stdout), &opened); err != nil || len(opened) != ports {
			t.Errorf("%s: printed %q: %v", args, o.stdout, err)
		}
	}
	if len(p.allocations) != before {
		t.Errorf("%d ports, before %d", len(p.allocations), before)
	}
	// What differs is another port.
	for _, args := range []string{
		"udp 2456-2458 --new", "udp 2456-2459", "udp 2456 --name other", "tcp 2456", "udp 10.0.0.5:2456",
		"tcp+udp 2456-2458", "tcp+udp 19132 --proxy-protocol none", "tcp 25565 --host localhost --public-port 40000",
	} {
		known := map[int64]bool{}
		for _, a := range p.allocations {
			known[a.ID] = true
		}
		for _, a := range m.open(strings.Fields(args)...) {
			if known[a.ID] {
				t.Errorf("%s: answered %+v", args, a)
			}
		}
	}
}

func TestOpen_ThatFailsLeavesNoPort(t *testing.T) {
	for _, args := range []string{"tcp 25565", "tcp+udp 25565", "udp 2456-2458"} {
		p := newPanel(t)
		p.settle = types.AllocationFailed
		m := enrolledAt(t, p)
		m.run(append([]string{"open", "--json"}, strings.Fields(args)...)...).want(t, 14, "closed again", "the reason")
		if len(p.allocations) != 0 {
			t.Errorf("%s: %+v is left", args, p.allocations)
		}
		// Interrupted, as by Ctrl-C.
		m.fail = context.Canceled
		m.run(append([]string{"open"}, strings.Fields(args)...)...).want(t, 1, "interrupted")
		if len(p.allocations) != 0 {
			t.Errorf("%s: %+v is left after an interruption", args, p.allocations)
		}
		// A port that was open before is not closed.
		m.run(append([]string{"open", "--wait", "0s"}, strings.Fields(args)...)...).want(t, 0)
		before := len(p.allocations)
		m.run(append([]string{"open"}, strings.Fields(args)...)...).want(t, 12, "open already", "the reason")
		if len(p.allocations) != before {
			t.Errorf("%s: it closed a port that was open before", args)
		}
	}
}

func TestOpen_KeepsAPortThatMayYetServe(t *testing.T) {
	forbidden := refusal(403, types.CodeForbidden)
	for name, test := range map[string]struct {
		answer *answer // To the last check.
		code   int
		words  string
	}{
		"it fails at the last check":    {nil, 12, "the reason"},
		"the last check gets no status": {&forbidden, 5, "check whether players can join"},
	} {
		p := newPanel(t)
		m := enrolledAt(t, p)
		p.settle = types.AllocationPending
		p.onList = func() *answer {
			if len(m.waits) < 8 {
				return nil
			}
			p.settle = types.AllocationFailed
			return test.answer
		}
		m.run("open", "tcp+udp", "25565", "--new", "--wait", "2s").want(t, test.code, "play.test:25000", test.words)
		if len(p.allocations) != 2 {
			t.Errorf("%s: %+v is left", name, p.allocations)
		}
	}
}

func TestOpen_ThatRecoversAtTheLastMomentStaysOpen(t *testing.T) {
	p := newPanel(t)
	p.settle = types.AllocationFailed
	m := enrolledAt(t, p)
	p.onList = func() *answer {
		if len(m.waits) == int(failureLimit/checkInterval)+1 { // One before the failure was known.
			p.allocations[0].Status = types.AllocationListening
		}
		return nil
	}
	m.run("open", "tcp", "25565", "--new").want(t, 0, "listening")
}

func TestOpen_SaysWhatItCouldNotClose(t *testing.T) {
	p := newPanel(t)
	p.settle, p.stuck = types.AllocationFailed, true
	m := enrolledAt(t, p)
	o := m.run("open", "tcp", "25565")
	o.want(t, 12, "could not be closed again", "eclitunnel close id:1", "play.test:25000", "the reason")
	if strings.Contains(o.stderr, "is closed again") {
		t.Errorf("said %s", o.stderr)
	}
}

func TestOpen_ChecksAllItsPortsWithOneRequest(t *testing.T) {
	p := newPanel(t)
	p.settle = types.AllocationPending
	lists := 0
	p.onList = func() *answer { lists++; return nil }
	m := enrolledAt(t, p)
	m.run("open", "tcp+udp", "2456-2471", "--new", "--wait", "1s").want(t, 12)
	if lists != 4 || len(m.waits) != 4 {
		t.Errorf("%d requests, %d waits", lists, len(m.waits))
	}
}

func TestOpen_OfAPortThatIsClosedMeanwhile(t *testing.T) {
	p := newPanel(t)
	p.onList = func() *answer { p.allocations = nil; return nil }
	m := enrolledAt(t, p)
	m.run("open", "tcp", "25565", "--new").want(t, 11, "no such port")
}

func TestList_ShowsARunAsOneRow(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp+udp", "27015-27017", "--name", "source") // IDs 1 to 6, public ports from 25000 on
	m.open("udp", "10.0.0.5:2456-2458")                  // IDs 7 to 9, from 25003 on
	m.open("tcp", "25565")                               // ID 10
	for _, command := range []string{"list", "status"} {
		o := m.run(command)
		o.want(t, 0, "play.test:25000-25002", "127.0.0.1:27015-27017", "play.test:25003-25005", "10.0.0.5:2456-2458", "play.test:25006 ")
		if n := strings.Count(o.stdout, "play.test:"); n != 4 {
			t.Errorf("%d rows:\n%s", n, o.stdout)
		}
	}
	// What differs has its own row.
	p.allocations[2].Status = types.AllocationFailed
	o := m.run("list")
	o.want(t, 0, "play.test:25000 ", "play.test:25001 ", "play.test:25002 ", "failed", "play.test:25000-25002")
}

func TestClose_ClosesARunAsAWhole(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp+udp", "27015-27017") // IDs 1 to 6, public ports from 25000 on
	m.open("udp", "2456-2458")       // IDs 7 to 9, from 25003 on
	m.open("tcp", "25565")           // ID 10, 25006
	m.open("udp", "27960-27962", "--name", "quake")
	m.run("close", "25003-25004").want(t, 2, "25003-25005")
	m.run("close", "25004-25005").want(t, 2, "25003-25005")
	m.run("close", "30000-30002").want(t, 11, "no such port")
	m.run("close", "25000-25003").want(t, 2, "25000-25002")
	m.run("close", "25002-25000").want(t, 11)
	for _, c := range []struct {
		target string
		left   int
	}{{"id:3", 10}, {"25001", 7}, {"port:25003-25005", 4}, {"25006", 3}, {"name:quake", 0}} {
		m.run("close", c.target).want(t, 0, "closed ")
		if len(p.allocations) != c.left {
			t.Errorf("after %s: %+v", c.target, p.allocations)
		}
	}
}

func TestHelp_AsAWord(t *testing.T) {
	m := newMachine(t)
	for args, words := range map[string]string{"help": "Exit codes", "help open": "--public-port", "help run": "--allow"} {
		m.run(strings.Fields(args)...).want(t, 0, words)
	}
	m.run("help", "dance").want(t, 2, "dance")
}
