package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

func TestCompletion_OffersThePortsOfTheMachine(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.open("tcp+udp", "1", "--name", "valheim", "--label", "game=valheim")
	m.open("tcp", "2")
	for line, want := range map[string]string{
		"close ":          "25001 valheim",
		"pause val":       "valheim",
		"resume 2":        "25001",
		"list --label ":   "game game=valheim",
		"list --label=ga": "--label=game --label=game=valheim",
		"open --label ":   "",
		"open tcp 1 ":     "",
		"apply --pr":      "--prune",
		"completion z":    "zsh",
		"ma":              "",
	} {
		o := m.run(append([]string{commandline.Word, "fish"}, strings.Split(line, " ")...)...)
		o.want(t, 0)
		var got []string
		for line := range strings.Lines(o.stdout) {
			value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			got = append(got, value)
		}
		if slices.Sort(got); strings.Join(got, " ") != want || o.stderr != "" {
			t.Errorf("%q offers %q, want %q; it says %q", line, got, want, o.stderr)
		}
	}
	m.run(commandline.Word, "fish", "close", "v").want(t, 0, "valheim\ttcp play.test:25000, udp play.test:25000")
	// Without an answer there are no names, and nothing is said.
	refused := refusal(401, types.CodeUnauthorized)
	p.refuse = &refused
	if o := m.run(commandline.Word, "fish", "close", ""); o.code != 0 || o.stdout+o.stderr != "" {
		t.Errorf("without a panel: %+v", o)
	}
	m.run("completion", "bash").want(t, 0, "complete -F _eclitunnel eclitunnel")
	m.run("completion", "tcsh").want(t, 2, "powershell")
}

func TestMan_WritesPagesThatAreWellFormed(t *testing.T) {
	m := newMachine(t)
	m.env["SOURCE_DATE_EPOCH"] = "1767225600"
	dir := t.TempDir()
	m.run("man", dir).want(t, 0)
	pages, err := filepath.Glob(filepath.Join(dir, "eclitunnel*.1"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("wrote %v (%v)", pages, err)
	}
	if _, err := exec.LookPath("mandoc"); err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	output, err := exec.CommandContext(t.Context(), "mandoc", append([]string{"-T", "lint"}, pages...)...).CombinedOutput()
	if err != nil || len(output) > 0 {
		t.Errorf("%v\n%s", err, output)
	}
	m.env["SOURCE_DATE_EPOCH"] = "yesterday"
	m.run("man", dir).want(t, 2, "SOURCE_DATE_EPOCH")
}
