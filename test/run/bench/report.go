//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// report is a run's results.
type report struct {
	Command  string    `json:"command"`
	Host     host      `json:"host"`
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Rounds   int       `json:"rounds"`
	Subjects []string  `json:"subjects"`
	Results  []*result `json:"results"`
	Failures []failure `json:"failures"`
}

// host is the machine.
type host struct {
	CPUs       int    `json:"cpus"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Congestion string `json:"tcpCongestionControl"`
	// UplinkCongestion is that of the network namespace with the home uplink.
	UplinkCongestion string `json:"uplinkTCPCongestionControl,omitempty"`
}

// result is one metric of one subject over all rounds.
type result struct {
	Metric  string    `json:"metric"`
	Subject string    `json:"subject"`
	Unit    string    `json:"unit"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
}

// failure is a sample that could not be taken, or was left out.
type failure struct {
	Measure string `json:"measure"`
	Subject string `json:"subject"`
	Round   int    `json:"round"`
	Reason  string `json:"reason"`
	// Fatal: the measure failed. Otherwise the machine was busy with something else.
	Fatal bool `json:"fatal"`
}

// add adds a sample's value.
func (r *report) add(metric, subject string, value float64) {
	found := r.result(metric, subject)
	if found == nil {
		found = &result{Metric: metric, Subject: subject, Unit: describe(metric).unit}
		r.Results = append(r.Results, found)
	}
	found.Samples = append(found.Samples, value)
	sorted := slices.Sorted(slices.Values(found.Samples))
	middle := len(sorted) / 2
	found.Min, found.Max, found.Median = sorted[0], sorted[len(sorted)-1], sorted[middle]
	if len(sorted)%2 == 0 {
		found.Median = (sorted[middle-1] + sorted[middle]) / 2
	}
}

// merge adds what another run has measured.
func (r *report) merge(other report) {
	for _, subject := range other.Subjects {
		if !slices.Contains(r.Subjects, subject) {
			r.Subjects = append(r.Subjects, subject)
		}
	}
	for _, o := range other.Results {
		for _, value := range o.Samples {
			r.add(o.Metric, o.Subject, value)
		}
	}
	r.Failures = append(r.Failures, other.Failures...)
	r.Host.UplinkCongestion = cmp.Or(other.Host.UplinkCongestion, r.Host.UplinkCongestion)
}

func (r *report) result(metric, subject string) *result {
	for _, found := range r.Results {
		if found.Metric == metric && found.Subject == subject {
			return found
		}
	}
	return nil
}

// quantile is the q-quantile of durations (nearest rank), 0 where there are none.
func quantile(durations []time.Duration, q float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	rank := sort.Search(len(sorted), func(i int) bool { return float64(i+1) >= q*float64(len(sorted)) })
	return sorted[min(rank, len(sorted)-1)]
}

// metric is a row: how it reads, and what ours shall reach. A goal is "yes" or
// "no", or a bound, "at most 5", of what another subject reached in the same run
// where one is named, "at most 1.2 hop2"; it is another subject's where one comes
// first. There are goals with semicolons between them.
type metric struct{ id, title, unit, goals string }

// yesNo is the unit of what is true or not.
const yesNo = "yes/no"

// metrics are the rows in their order. CPU time depends on the machine, so beside
// a goal in seconds stands what it was of hop2 or hop2-tls where it was set.
// Below a third, a difference between idle round trips is noise. The goals of
// ours-limited are the noise: by so much the medians of two runs of ours differ.
// The rows of UDP flows come before udp-offered-lost.
var metrics = slices.Concat([]metric{
	{"download", "download, one stream", "MB/s", "at least 1 hop2-tls; at least 1.4 frp; ours-plain at least 1 hop2; ours-limited at least 0.9 ours"},
	{"download-cpu", "its CPU", "s/GB", "at most 1.6; at most 1 hop2-tls; ours-limited at most 1.1 ours"},
	{"upload", "upload, one stream", "MB/s", "ours-limited at least 0.9 ours"},
	{"upload-cpu", "its CPU", "s/GB", "ours-limited at most 1.1 ours"},
	{"download8", "download, eight streams", "MB/s", "at least 0.95 hop2-tls; at least 1.4 frp; ours-plain at least 0.85 hop2; ours-limited at least 0.9 ours"},
	{"download8-cpu", "its CPU", "s/GB", "ours-limited at most 1.1 ours"},
	{"rtt-idle-p50", "round trip 64 B, idle, p50", "µs", "at most 1.33 hop2; ours-limited at most 1.33 ours"},
	{"rtt-idle-p99", "the same, p99", "µs", "ours-limited at most 1.5 ours"},
	{"rtt-busy-p50", "round trip beside a 50 MB/s stream, p50", "µs", "ours-limited at most 1.2 ours"},
	{"rtt-busy-p99", "the same, p99", "µs", "at most 1.2 hop2; ours-limited at most 1.3 ours"},
	{"joins", "new connections", "1/s", "at least 0.7 hop2; at least 1.5 frp; ours-limited at least 0.85 ours"},
	{"joins-cpu", "CPU of each", "µs", "at most 260; at most 1.54 hop2; ours-limited at most 1.15 ours"},
	{"udp-rtt-p50", "UDP round trip, idle, p50", "µs", "at most 1.3 hop2; ours-limited at most 1.2 ours"},
	{"udp-rtt-p99", "the same, p99", "µs", "ours-limited at most 1.5 ours"},
	{"udp-load", "UDP, 256 in flight over 16 flows, 200 B: round trips", "1/s", "at least 1.3 hop2; ours-limited at least 0.9 ours"},
	{"udp-load-cpu", "CPU of each", "µs", "at most 10; at most 0.83 hop2; ours-limited at most 1.1 ours"},
	{"udp-load-lost", "lost of them", "%", ""},
	{"udp-offered-lost", "UDP, 20,000/s offered: lost", "%", "at most 0; ours-limited at most 0"},
	{"udp-offered-p50", "the same, p50", "µs", "ours-limited at most 1.2 ours"},
	{"udp-offered-p99", "the same, p99", "µs", "at most 1.5 hop2; ours-limited at most 1.5 ours"},
	{"idle-memory", "memory of an idle player connection, both ends", "kB", "at most 50; ours-plain at most 40; ours-limited at most 1.1 ours"},
	{"uplink-tcp-p50", "home uplink, TCP round trip beside a transfer, p50", "ms", "at most 3; ours-limited at most 3"},
	{"uplink-tcp-p99", "the same, p99", "ms", "at most 6; ours-limited at most 6"},
	{"uplink-udp-p50", "home uplink, UDP round trip beside a transfer, p50", "ms", "at most 3; ours-limited at most 3"},
	{"uplink-udp-p99", "the same, p99", "ms", "at most 6; ours-limited at most 6"},
	{"uplink-rate", "the transfer beside them", "Mbit/s", ""},
}, lossRows(), []metric{
	{"half-close", "half-close passed on", yesNo, "yes; ours-limited yes"},
	{"stalled-reader", "blocked by a stalled reader", yesNo, "no; ours-limited no"},
})

// losses are the shares of packets, in percent, that a link loses.
var losses = []int{0, 1, 3}

// lossMetric is what is measured at one of them: p50, p99, answered, and but for
// no loss ratio, that of p99 to the one at no loss.
func lossMetric(percent int, what string) string { return fmt.Sprintf("loss-udp-%d-%s", percent, what) }

func lossRows() []metric {
	var rows []metric
	for _, percent := range losses {
		link := fmt.Sprintf("%d %% lost", percent)
		if percent == 0 {
			link = "no loss"
		}
		rows = append(rows,
			metric{lossMetric(percent, "p50"), fmt.Sprintf("UDP game flows, 50/s each, %s: round trip, p50", link), "µs", ""},
			metric{lossMetric(percent, "p99"), "the same, p99", "µs", ""})
		if percent > 0 {
			rows = append(rows, metric{lossMetric(percent, "ratio"), "that to the p99 without loss", "ratio", "at most 1.5; ours-limited at most 1.5"})
		}
		rows = append(rows, metric{lossMetric(percent, "answered"), "answered of them", "%", ""})
	}
	return rows
}

const udpFlowsPrefix = "udp-flows-"

// describe returns a row; its title is empty where there is none.
func describe(id string) metric {
	if n, ok := strings.CutPrefix(id, udpFlowsPrefix); ok {
		return metric{id, n + " UDP flows at once: answered", "flows", "at least " + n + "; ours-limited at least " + n}
	}
	if at := slices.IndexFunc(metrics, func(m metric) bool { return m.id == id }); at >= 0 {
		return metrics[at]
	}
	return metric{}
}

// format prints three digits, without an exponent.
func (m metric) format(v float64) string {
	if m.unit == yesNo {
		return map[bool]string{true: "yes", false: "no"}[v != 0]
	}
	return number(v)
}

func number(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 10:
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	default:
		return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".")
	}
}
