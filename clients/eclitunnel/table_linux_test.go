package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestTable_AlignsWideAndHostileNames(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, env: func(string) (string, bool) { return "", false }}
	a.printTable([][]string{{"A", "B"}, {"生存", "x"}, {"\x1b[2J", "y"}}, func(int, int) string { return "31" })
	if got, want := out.String(), "A        B\n生存     x\n\\x1b[2J  y\n"; got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
}

func TestList_InATerminalHasColoursAndSaysWhatToDo(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp", "25565")
	m.open("tcp", "22")
	m.open("tcp", "23")
	p.noGame(0)
	p.allocations[1].Status = types.AllocationPaused
	p.allocations[2].Status = types.AllocationOffline
	for _, command := range []string{"list", "status"} {
		plain := m.run(command)
		if strings.Contains(plain.stdout, "\x1b") || strings.Contains(plain.stdout, "eclitunnel resume") {
			t.Errorf("%s prints for a person although none looks:\n%q", command, plain.stdout)
		}
		w := m.window(160, 40, nil, command)
		w.has(nothingListens+", or open the port where it listens: eclitunnel open tcp PORT", "eclitunnel resume id:2", "start it with: eclitunnel run")
		if code := await.Receive(t, w.code, "the end"); code != 0 {
			t.Errorf("%s: exit code %d", command, code)
		}
		if !w.Colored() {
			t.Errorf("%s has no colours in a terminal", command)
		}
		w = m.window(160, 40, map[string]string{"NO_COLOR": "1"}, command)
		w.has("eclitunnel resume id:2")
		if w.Colored() {
			t.Errorf("%s has colours in spite of NO_COLOR", command)
		}
	}
}
