package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// hostile clears the screen, forges a row of the list in two ways, and turns text round.
const hostile = "game\x1b[2J\n1  tcp  play.test:1\r\tx\u009b2K\u2028\u202ey\u200b\ufeff\x7f"

func TestOutput_IsEscaped(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	p.allocations = []types.Allocation{{
		ID: 7, Protocol: "tcp", Port: 25000, PublicAddress: hostile, LocalHost: hostile, LocalPort: 1, Name: hostile,
		Status: types.AllocationFailed, StatusReason: nullable.NewNullableWithValue(hostile),
	}}
	for name, args := range map[string][]string{
		"list": {"list"}, "list, JSON": {"list", "--json"}, "status": {"status"}, "pause": {"pause", "7"}, "resume": {"resume", "7"}, "close": {"close", "7"},
	} {
		p.mu.Lock()
		listed := append([]types.Allocation(nil), p.allocations...)
		p.mu.Unlock()
		o := m.run(args...)
		o.want(t, 0)
		wantPlain(t, name, o.stdout+o.stderr)
		if name == "list" && strings.Count(o.stdout, "\n") != 2 {
			t.Errorf("the list of one port has the lines %q", o.stdout)
		}
		if name == "list, JSON" {
			var got []types.Allocation
			if err := json.Unmarshal([]byte(o.stdout), &got); err != nil || len(got) != 1 || got[0].Name != hostile {
				t.Errorf("JSON changed the name: %v in %s", err, o.stdout)
			}
		}
		p.mu.Lock()
		p.allocations = listed
		p.mu.Unlock()
	}

	p.mu.Lock()
	p.refuse = &answer{404, types.Problem{Error: types.CodeNotFound, Message: hostile}}
	p.mu.Unlock()
	o := m.run("list")
	o.want(t, 11, `\x1b[2J`)
	wantPlain(t, "an error of the panel", o.stdout+o.stderr)
	if strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("the error has the lines %q", o.stderr)
	}
}

func TestOutput_OfEventsIsEscaped(t *testing.T) {
	var out strings.Builder
	d := &display{app: &app{stdout: &out}, panel: "https://panel.test", device: deviceLabel(hostile, uuid.New())}
	port := &agent.EventPort{Protocol: "tcp", PublicAddress: hostile, LocalAddress: hostile, Name: hostile}
	for _, e := range []agent.Event{
		{Type: agent.EventConnected},
		{Type: agent.EventDisconnected, Reason: hostile},
		{Type: agent.EventAllocationReady, Allocation: port},
		{Type: agent.EventAllocationFailed, Allocation: port, Reason: hostile},
		{Type: agent.EventAllocationTarget, Allocation: port, Target: types.TargetDown, Reason: hostile},
		{Type: agent.EventAllocationClosed, Allocation: port},
	} {
		d.line(e)
	}
	wantPlain(t, "events", out.String())
	if strings.Count(out.String(), "\n") != 6 {
		t.Errorf("6 events are the lines %q", out.String())
	}
}

// wantPlain checks that a terminal shows text as it is.
func wantPlain(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\u200d' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Errorf("%s prints %U in %q", what, r, text)
			return
		}
	}
}
