package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const nothingListens = "nothing listens on 127.0.0.1:25565: start the game"

// noGame has a panel say that an allocation's game cannot be reached.
func (p *panel) noGame(i int) {
	p.allocations[i].Target, p.allocations[i].TargetReason = types.TargetDown, new(nothingListens)
}

func TestCommands_ShowPortsWithoutAGame(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("udp", "2456-2457") // A run: one row.
	m.open("tcp", "25565")
	m.open("tcp", "22")
	for i := range 3 {
		p.noGame(i)
	}
	m.run("list").want(t, 0)
	o := m.run("list")
	o.want(t, 0, "2456-2457", "listening, no game")
	if n := strings.Count(o.stdout, "no game"); n != 2 {
		t.Errorf("%d rows have no game:\n%s", n, o.stdout)
	}
	o = m.run("status")
	o.want(t, 0, "4 open, 4 listening, 3 of them without a game", "no game behind tcp play.test:25002: "+nothingListens)

	var listed []types.Allocation
	if err := json.Unmarshal([]byte(m.run("list", "--json").stdout), &listed); err != nil {
		t.Fatal(err)
	}
	if a := listed[2]; a.Target != types.TargetDown || a.TargetReason == nil || *a.TargetReason != nothingListens {
		t.Errorf("list --json says %+v", a)
	}

	// Of a port that does not work, that is what counts.
	p.allocations[2].Status = types.AllocationOffline
	p.allocations[0].Target, p.allocations[0].TargetReason = types.TargetUp, nil
	p.allocations[1].Target, p.allocations[1].TargetReason = types.TargetUnknown, nil
	if o = m.run("status"); strings.Contains(o.stdout, "game") {
		t.Errorf("said\n%s", o.stdout)
	}
}

func TestOpen_SaysThatThereIsNoGame(t *testing.T) {
	for name, c := range map[string]struct {
		target types.TargetState
		checks int // Until the panel says it.
		words  string
		waits  int
	}{
		"known at once":                {types.TargetDown, 0, nothingListens, 1},
		"known soon":                   {types.TargetDown, 2, nothingListens, 3},
		"a game":                       {types.TargetUp, 2, "", 3},
		"not known":                    {types.TargetUnknown, 0, "", 5},
		"a panel that does not say it": {"", 0, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			lists := 0
			p.onList = func() *answer {
				for i := range p.allocations {
					p.allocations[i].Target = types.TargetUnknown
					if lists > c.checks || c.target == "" {
						p.allocations[i].Target = c.target
					}
					if lists > c.checks && c.target == types.TargetDown {
						p.noGame(i)
					}
				}
				lists++
				return nil
			}
			m := enrolledAt(t, p)
			o := m.run("open", "tcp", "25565")
			o.want(t, 0, "play.test:25000", c.words)
			if len(m.waits) != c.waits || (c.words == "") != (o.stderr == "") {
				t.Errorf("waited %v, and said %q", m.waits, o.stderr)
			}
		})
	}
}

func TestRun_SaysWhenAGameIsMissingAndThereAgain(t *testing.T) {
	var out strings.Builder
	d := &display{app: &app{stdout: &out}}
	port := &agent.EventPort{ID: 1, Protocol: "tcp", PublicAddress: "play.test:25000", LocalAddress: "127.0.0.1:25565"}
	var said []string
	for _, target := range []types.TargetState{types.TargetUp, types.TargetDown, types.TargetUp, types.TargetUnknown, types.TargetDown, types.TargetUnknown} {
		out.Reset()
		e := agent.Event{Type: agent.EventAllocationTarget, Allocation: port, Target: target}
		if target == types.TargetDown {
			e.Reason = nothingListens
		}
		d.line(e)
		_, line, _ := strings.Cut(strings.TrimSpace(out.String()), "  ")
		said = append(said, line)
	}
	const at = "tcp  play.test:25000 -> 127.0.0.1:25565: "
	want := []string{
		"", "no game " + at + nothingListens, "game    " + at + "the game is there",
		"", "no game " + at + nothingListens, "game    " + at + "players are no longer refused",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}
