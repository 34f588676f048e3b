package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
)

func sample(r *report.Report, id report.MetricID, subject string, values ...float64) {
	for _, v := range values {
		r.Add(id, subject, v)
	}
}

// line returns the table's line that begins with a title, with single spaces.
func line(t *testing.T, r *report.Report, title string) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(l, title) {
			return strings.Join(strings.Fields(l), " ")
		}
	}
	t.Fatalf("no line begins with %q in\n%s", title, out.String())
	return ""
}

func TestWriteTable_ComparesOursWithTheGoals(t *testing.T) {
	r := &report.Report{Subjects: []string{"hop2", "hop2-copy", "hop2-tls", "frp", "ours"}}
	sample(r, report.Joins, "hop2", 1000, 1010, 990)
	sample(r, report.Joins, "frp", 500)
	sample(r, report.Joins, "ours", 720)
	sample(r, report.JoinsCPU, "hop2", 200)
	sample(r, report.JoinsCPU, "ours", 300)
	sample(r, report.Loss(3).Ratio, "ours", 1.6)
	sample(r, report.UDPLoadCPU, "ours", 9)
	sample(r, report.RTTBusyP99, "hop2", 200)
	sample(r, report.RTTBusyP99, "ours", 250)
	sample(r, report.HalfClose, "ours", 1)
	sample(r, report.UDPFlows(5000), "ours", 4999)
	// Two rows begin alike.
	var out bytes.Buffer
	if err := r.WriteMarkdown(&out); err != nil || !strings.Contains(out.String(), "| at most 10 met; at most 0.83 hop2 |") {
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
	r := &report.Report{Subjects: []string{"hop2", "hop2-copy"}}
	sample(r, report.Download, "hop2", 900)
	sample(r, report.DownloadCPU, "hop2", 0.5)
	sample(r, report.Download, "hop2-copy", 1100)
	sample(r, report.DownloadCPU, "hop2-copy", 0.9)
	if got := line(t, r, "download, one stream"); !strings.Contains(got, "1100") {
		t.Errorf("the faster way is missing: %s", got)
	}
	if got := line(t, r, "its CPU"); !strings.Contains(got, "0.9") {
		t.Errorf("the faster way's cost is missing: %s", got)
	}
}

func TestWriteTable_ShowsASpreadThatMatters(t *testing.T) {
	r := &report.Report{Subjects: []string{"direct"}}
	sample(r, report.Download, "direct", 100, 101, 102)
	sample(r, report.Upload, "direct", 100, 300, 200)
	if got := line(t, r, "download, one stream"); strings.Contains(got, "(") {
		t.Errorf("a spread of 2 %% is shown: %s", got)
	}
	if got := line(t, r, "upload"); !strings.Contains(got, "200 (100-300)") {
		t.Errorf("got %s", got)
	}
}

func TestWriteTable_ComparesOursWithoutEncryptionWithItsOwnGoals(t *testing.T) {
	r := &report.Report{Subjects: []string{"hop2", "ours", "ours-plain"}}
	sample(r, report.IdleMemory, "ours", 45)
	sample(r, report.IdleMemory, "ours-plain", 45)
	want := "memory of an idle player connection, both ends, kB 45 45 at most 50 met; ours-plain at most 40 missed"
	if got := line(t, r, "memory"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sample(r, report.Download8, "hop2", 1000)
	sample(r, report.Download8, "ours-plain", 900)
	if got := line(t, r, "download, eight"); !strings.HasSuffix(got, "ours-plain at least 0.85 hop2: 0.9 met") {
		t.Errorf("got %s", got)
	}
}

func TestMerge_KeepsWhatBothMeasured(t *testing.T) {
	r := &report.Report{Subjects: []string{"direct"}}
	other := report.Report{Subjects: []string{"direct", "hop2"}, Host: report.Host{UplinkCongestion: "reno"}}
	sample(&other, report.UplinkRate, "hop2", 95)
	r.Merge(other)
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
	r := &report.Report{Command: "bench --rounds 3", Rounds: 3, Subjects: []string{"direct", "ours"}}
	sample(r, report.Download, "direct", 3000)
	sample(r, report.Download, "ours", 800, 800, 800)
	r.Failures = []report.Failure{
		{Measure: "upload", Subject: "ours", Round: 2, Reason: "it broke", Fatal: true},
		{Measure: "upload", Subject: "ours", Round: 1},
	}
	var out bytes.Buffer
	if err := r.WriteMarkdown(&out); err != nil {
		t.Fatal(err)
	}
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
		if got := report.Quantile(times, q); got != want {
			t.Errorf("the %v-quantile is %d, want %d", q, got, want)
		}
	}
	if got := report.Quantile(nil, 0.5); got != 0 {
		t.Errorf("the median of nothing is %d", got)
	}
}
