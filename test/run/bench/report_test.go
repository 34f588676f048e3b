//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func samples(r *report, id, subject string, values ...float64) {
	for _, v := range values {
		r.add(id, subject, v)
	}
}

// line returns the table's line that begins with a title, with single spaces.
func line(t *testing.T, r *report, title string) string {
	t.Helper()
	var out bytes.Buffer
	check(t, r.writeTable(&out))
	for _, l := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(l, title) {
			return strings.Join(strings.Fields(l), " ")
		}
	}
	t.Fatalf("no line begins with %q in\n%s", title, out.String())
	return ""
}

func TestWriteTable_ComparesOursWithTheGoals(t *testing.T) {
	r := &report{Subjects: []string{"hop2", "hop2-copy", "hop2-tls", "frp", "ours"}}
	samples(r, "joins", "hop2", 1000, 1010, 990)
	samples(r, "joins", "frp", 500)
	samples(r, "joins", "ours", 720)
	samples(r, "joins-cpu", "hop2", 200)
	samples(r, "joins-cpu", "ours", 300)
	samples(r, lossMetric(3, "ratio"), "ours", 1.6)
	samples(r, "udp-load-cpu", "ours", 9)
	samples(r, "rtt-busy-p99", "hop2", 200)
	samples(r, "rtt-busy-p99", "ours", 250)
	samples(r, "half-close", "ours", 1)
	samples(r, "udp-flows-5000", "ours", 4999)
	// Two rows begin alike.
	var out bytes.Buffer
	if err := r.writeMarkdown(&out); err != nil || !strings.Contains(out.String(), "| at most 10 met; at most 0.83 hop2 |") {
		t.Errorf("a goal against what was not measured is missing (%v) in\n%s", err, out.String())
	}
	for title, want := range map[string]string{
		"new connections":         "new connections, 1/s 1000 500 720 at least 0.7 hop2: 0.72 met; at least 1.5 frp: 1.44 missed",
		"CPU of each":             "CPU of each, µs 200 300 at most 260 missed; at most 1.54 hop2: 1.5 met",
		"the same":                "the same, p99, µs 200 250 at most 1.2 hop2: 1.25 missed",
		"that to the p99":         "that to the p99 without loss, ratio 1.6 at most 1.5 missed",
		"half-close":              "half-close passed on yes yes met",
		"5000 UDP flows at once:": "5000 UDP flows at once: answered, flows 4999 at least 5000 missed",
	} {
		if got := line(t, r, title); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestWriteTable_TakesTheFasterWayThroughHop2AndWhatThatCosts(t *testing.T) {
	r := &report{Subjects: []string{"hop2", "hop2-copy"}}
	samples(r, "download", "hop2", 900)
	samples(r, "download-cpu", "hop2", 0.5)
	samples(r, "download", "hop2-copy", 1100)
	samples(r, "download-cpu", "hop2-copy", 0.9)
	if got := line(t, r, "download, one stream"); !strings.Contains(got, "1100") {
		t.Errorf("the faster way is missing: %s", got)
	}
	if got := line(t, r, "its CPU"); !strings.Contains(got, "0.9") {
		t.Errorf("the faster way's cost is missing: %s", got)
	}
}

func TestWriteTable_ShowsASpreadThatMatters(t *testing.T) {
	r := &report{Subjects: []string{"direct"}}
	samples(r, "download", "direct", 100, 101, 102)
	samples(r, "upload", "direct", 100, 300, 200)
	if got := line(t, r, "download, one stream"); strings.Contains(got, "(") {
		t.Errorf("a spread of 2 %% is shown: %s", got)
	}
	if got := line(t, r, "upload"); !strings.Contains(got, "200 (100-300)") {
		t.Errorf("got %s", got)
	}
}

func TestWriteTable_ComparesOursWithoutEncryptionWithItsOwnGoals(t *testing.T) {
	r := &report{Subjects: []string{"hop2", "ours", "ours-plain"}}
	samples(r, "idle-memory", "ours", 45)
	samples(r, "idle-memory", "ours-plain", 45)
	want := "memory of an idle player connection, both ends, kB 45 45 at most 50 met; ours-plain at most 40 missed"
	if got := line(t, r, "memory"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	samples(r, "download8", "hop2", 1000)
	samples(r, "download8", "ours-plain", 900)
	if got := line(t, r, "download, eight"); !strings.HasSuffix(got, "ours-plain at least 0.85 hop2: 0.9 met") {
		t.Errorf("got %s", got)
	}
}

func TestWriteTable_ComparesOursLimitedWithOurs(t *testing.T) {
	r := &report{Subjects: []string{"ours", "ours-limited"}}
	for id, values := range map[string][2]float64{
		"upload": {1000, 950}, "upload-cpu": {1, 1.2}, "uplink-udp-p99": {2, 7}, "udp-flows-300": {300, 300}, "half-close": {1, 1},
	} {
		samples(r, id, "ours", values[0])
		samples(r, id, "ours-limited", values[1])
	}
	for title, want := range map[string]string{
		"upload":        "upload, one stream, MB/s 1000 950 ours-limited at least 0.9 ours: 0.95 met",
		"its CPU":       "its CPU, s/GB 1 1.2 ours-limited at most 1.1 ours: 1.2 missed",
		"the same, p99": "the same, p99, ms 2 7 at most 6 met; ours-limited at most 6 missed",
		"300 UDP flows": "300 UDP flows at once: answered, flows 300 300 at least 300 met; ours-limited at least 300 met",
		"half-close":    "half-close passed on yes yes yes met; ours-limited yes met",
	} {
		if got := line(t, r, title); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// Every row that ours has a goal for has one for ours-limited.
	for _, m := range append(metrics, describe(udpFlowsPrefix+"300")) {
		if m.goals != "" && !strings.Contains(m.goals, oursLimited+" ") {
			t.Errorf("%s has no goal of %s: %s", m.id, oursLimited, m.goals)
		}
	}
}

func TestMerge_KeepsWhatBothMeasured(t *testing.T) {
	r := &report{Subjects: []string{"direct"}}
	other := report{Subjects: []string{"direct", "hop2"}, Host: host{UplinkCongestion: "reno"}}
	samples(&other, "uplink-rate", "hop2", 95)
	r.merge(other)
	if got := line(t, r, "the transfer"); got != "the transfer beside them, Mbit/s 95" {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(r.Subjects, " "); got != "direct hop2" {
		t.Errorf("subjects: %s", got)
	}
	if r.Host.UplinkCongestion != "reno" {
		t.Error("the congestion control is lost")
	}
}

func TestWriteMarkdown_IsATableWithItsCommand(t *testing.T) {
	r := &report{Command: "bench --rounds 3", Rounds: 3, Subjects: []string{"direct", "ours"}}
	samples(r, "download", "direct", 3000)
	samples(r, "download", "ours", 800, 800, 800)
	r.Failures = []failure{
		{Measure: "upload", Subject: "ours", Round: 2, Reason: "it broke", Fatal: true},
		{Measure: "upload", Subject: "ours", Round: 1},
	}
	var out bytes.Buffer
	check(t, r.writeMarkdown(&out))
	for _, want := range []string{
		"`bench --rounds 3`",
		"| measure | direct | ours | goal |\n|---|---|---|---|\n",
		"| download, one stream, MB/s | 3000 [1 of 3] | 800 | at least 1 hop2-tls; at least 1.4 frp |",
		"upload of ours, round 2: it broke",
		"1 samples were left out",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestQuantile_IsTheNearestRank(t *testing.T) {
	var times []time.Duration
	for i := 100; i >= 1; i-- {
		times = append(times, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(times, q); got != want {
			t.Errorf("the %v-quantile is %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("the median of nothing is %d", got)
	}
}
