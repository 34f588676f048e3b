//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

func TestMain(m *testing.M) {
	// The soak runs in a process of its own, which is this binary.
	role.Main("soak", roles)
	goleak.VerifyTestMain(m)
}

// testGoal is more than the goal of make soak: a machine that tests run on may
// be busy with other things.
const testGoal = 10 * time.Second

// TestSoak_PromisesHold breaks everything once; see the package documentation.
// What it takes that is not there is skipped, and fails with CI set.
func TestSoak_PromisesHold(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a whole fleet")
	}
	o := options{Bin: binaries(t), Agents: 20, Seed: uint64(time.Now().UnixNano()), Goal: testGoal, LogLevel: "info"}
	o.place(false)
	if !o.Apart && os.Getenv("CI") != "" {
		t.Fatalf("no network can be cut: %s", o.NotApart)
	}
	r, err := everywhere(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.write(t.Output()); err != nil {
		t.Error(err)
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
}

func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("ECLITUNNEL_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	if err := clustertest.Build(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReport_ShowsMedianAndWorstAndWhatIsBroken(t *testing.T) {
	r := report{Seed: 7, Breaches: []string{"a byte"}, Skipped: []string{"the rest"}}
	for _, d := range []time.Duration{3, 1, 2, 9, 4} {
		r.Results = append(r.Results, result{"a fault", times{whatPlayers: d * time.Second}})
	}
	out := new(strings.Builder)
	if err := r.write(out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a fault", "5  ", "3.00 / 9.00", "seed 7", "BROKEN: a byte", "skipped: the rest"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if r.verdict() == nil || (report{Failed: "x"}).verdict() == nil || (report{}).verdict() != nil {
		t.Error("a broken promise and a soak that failed are the only errors")
	}
}

func TestPromises_AreTighterThanTheGoal(t *testing.T) {
	for _, c := range []struct {
		fault, what string
		want        time.Duration
	}{
		{"tunnel server killed", whatPlayers, 3500 * time.Millisecond},
		{"tunnel server killed in a blackout", whatPlayers, 3500 * time.Millisecond},
		{"panels and Postgres down", whatChannels, 3 * time.Second},
		{"tunnel server killed", whatChange, 5 * time.Second},
		{"agent killed", whatPlayers, 5 * time.Second},
	} {
		if got := limit(c.fault, c.what, 5*time.Second); got != c.want {
			t.Errorf("%s: %s within %v, want %v", c.fault, c.what, got, c.want)
		}
	}
	names := map[string]bool{"tunnel server killed in a blackout": true}
	for _, f := range faults() {
		names[f.name] = true
	}
	for name := range promises {
		if !names[name] {
			t.Errorf("there is no fault %q", name)
		}
	}
}

func TestSlowMedians_FindsThoseAboveThePromise(t *testing.T) {
	var results []result
	for i := range medianCount {
		if found := slowMedians(results, 5*time.Second); len(found) != 0 {
			t.Errorf("found %q in %d cases", found, i)
		}
		results = append(results,
			result{"tunnel server killed", times{whatPlayers: 2100 * time.Millisecond}},
			result{"tunnel server killed in a blackout", times{whatPlayers: 1900 * time.Millisecond}},
			result{"agent killed", times{whatPlayers: 3 * time.Second}},
		)
	}
	if found := slowMedians(results, 5*time.Second); len(found) != 1 || !strings.Contains(found[0], "tunnel server killed: players back after 2.1s") {
		t.Errorf("found %q", found)
	}
	if found := slowMedians(results, 10*time.Second); len(found) != 0 {
		t.Errorf("found %q with twice the goal", found)
	}
}

func TestGrown_FindsWhatGrewAndNotWhatVaries(t *testing.T) {
	gauge := func(goroutines float64) size { return size{"home-1": {"go_goroutines": goroutines}} }
	if found := grown(gauge(100), gauge(200)); len(found) != 0 {
		t.Errorf("found %q", found)
	}
	if found := grown(gauge(100), gauge(1000)); len(found) != 1 || !strings.Contains(found[0], "goroutines grew from 100 to 1000") {
		t.Errorf("found %q", found)
	}
}

func TestParse_RefusesWhatCannotBe(t *testing.T) {
	for _, args := range []string{"--agents 0", "--agents 1000", "--goal 0", "--duration -1s", "more"} {
		if _, err := parse(strings.Fields(args), new(strings.Builder)); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if _, err := parse([]string{"--duration", "2h", "--seed", "1"}, new(strings.Builder)); err != nil {
		t.Error(fmt.Errorf("a good line: %w", err))
	}
}
