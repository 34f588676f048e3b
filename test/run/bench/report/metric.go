// Package report holds what was measured, compares it with the goals, and
// prints it as a table, as Markdown and, by way of its JSON tags, as JSON.
package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MetricID names one row of the results.
type MetricID string

// The metrics.
const (
	Download       MetricID = "download"
	DownloadCPU    MetricID = "download-cpu"
	Upload         MetricID = "upload"
	UploadCPU      MetricID = "upload-cpu"
	Download8      MetricID = "download8"
	Download8CPU   MetricID = "download8-cpu"
	RTTIdleP50     MetricID = "rtt-idle-p50"
	RTTIdleP99     MetricID = "rtt-idle-p99"
	RTTBusyP50     MetricID = "rtt-busy-p50"
	RTTBusyP99     MetricID = "rtt-busy-p99"
	Joins          MetricID = "joins"
	JoinsCPU       MetricID = "joins-cpu"
	UDPIdleP50     MetricID = "udp-rtt-p50"
	UDPIdleP99     MetricID = "udp-rtt-p99"
	UDPLoad        MetricID = "udp-load"
	UDPLoadCPU     MetricID = "udp-load-cpu"
	UDPLoadLost    MetricID = "udp-load-lost"
	UDPOfferedLost MetricID = "udp-offered-lost"
	UDPOfferedP50  MetricID = "udp-offered-p50"
	UDPOfferedP99  MetricID = "udp-offered-p99"
	IdleMemory     MetricID = "idle-memory"
	UplinkTCPP50   MetricID = "uplink-tcp-p50"
	UplinkTCPP99   MetricID = "uplink-tcp-p99"
	UplinkUDPP50   MetricID = "uplink-udp-p50"
	UplinkUDPP99   MetricID = "uplink-udp-p99"
	UplinkRate     MetricID = "uplink-rate"
	HalfClose      MetricID = "half-close"
	Stalled        MetricID = "stalled-reader"
)

// Losses are the shares of packets, in percent, that a link loses while LossMetrics
// are taken.
var Losses = []int{0, 1, 3}

// LossMetrics are what is measured at one of them.
type LossMetrics struct {
	P50, P99, Answered MetricID
	// Ratio is that of P99 to the one at no loss; none there.
	Ratio MetricID
}

// Loss is the metrics at a loss of so many percent.
func Loss(percent int) LossMetrics {
	id := func(what string) MetricID { return MetricID(fmt.Sprintf("loss-udp-%d-%s", percent, what)) }
	return LossMetrics{P50: id("p50"), P99: id("p99"), Answered: id("answered"), Ratio: id("ratio")}
}

// lossRows are the rows of Losses.
func lossRows() []metric {
	var rows []metric
	for _, percent := range Losses {
		m, link := Loss(percent), fmt.Sprintf("%d %% lost", percent)
		if percent == 0 {
			link = "no loss"
		}
		rows = append(rows,
			metric{id: m.P50, title: fmt.Sprintf("UDP game flows, 50/s each, %s: round trip, p50", link), unit: "µs", less: true},
			metric{id: m.P99, title: "the same, p99", unit: "µs", less: true})
		if percent > 0 {
			rows = append(rows, metric{id: m.Ratio, title: "that to the p99 without loss", unit: "ratio", less: true, goals: []goal{{bound: 1.5}}})
		}
		rows = append(rows, metric{id: m.Answered, title: "answered of them", unit: "%"})
	}
	return rows
}

const udpFlowsPrefix = "udp-flows-"

// UDPFlows is the metric of so many flows at once.
func UDPFlows(n int) MetricID { return MetricID(udpFlowsPrefix + strconv.Itoa(n)) }

// metric says how a row reads and what is wanted of it.
type metric struct {
	id    MetricID
	title string
	unit  string
	// less is better; otherwise more is.
	less bool
	// once: it is measured in the first round alone.
	once bool
	// faster is the metric by which the faster of two ways through a subject is
	// chosen, where that is not this one.
	faster MetricID
	goals  []goal
}

// yesNo is the unit of what is true or not.
const yesNo = "yes/no"

// goal is what our tunnel shall reach: a bound, times what another subject
// reached in the same run unless against is empty. It is the goal of of; empty
// is our encrypted tunnel.
type goal struct {
	bound   float64
	against string
	of      string
}

func (m metric) met(g goal, ours, other float64) bool {
	bound := g.bound
	if g.against != "" {
		bound *= other
	}
	if m.less {
		return ours <= bound
	}
	return ours >= bound
}

func (m metric) wording(g goal) string {
	if g.of != "" {
		of := g.of
		g.of = ""
		return of + " " + m.wording(g)
	}
	switch {
	case m.unit == yesNo:
		return truth(g.bound)
	case m.less && g.against == "":
		return "at most " + number(g.bound)
	case g.against == "":
		return "at least " + number(g.bound)
	case m.less:
		return fmt.Sprintf("at most %s %s", number(g.bound), g.against)
	default:
		return fmt.Sprintf("at least %s %s", number(g.bound), g.against)
	}
}

// metrics are the rows in their order. CPU time depends on the machine, so beside
// a goal in seconds stands what it was of hop2 or hop2-tls where it was set.
// Those of flows come behind udp-load.
var metrics = slices.Concat([]metric{
	{id: Download, title: "download, one stream", unit: "MB/s", goals: []goal{{bound: 1, against: "hop2-tls"}, {bound: 1.4, against: "frp"}, {bound: 1, against: "hop2", of: plain}}},
	{id: DownloadCPU, title: "its CPU", unit: "s/GB", less: true, faster: Download, goals: []goal{{bound: 1.6}, {bound: 1, against: "hop2-tls"}}},
	{id: Upload, title: "upload, one stream", unit: "MB/s"},
	{id: UploadCPU, title: "its CPU", unit: "s/GB", less: true, faster: Upload},
	{id: Download8, title: "download, eight streams", unit: "MB/s", goals: []goal{{bound: 0.95, against: "hop2-tls"}, {bound: 1.4, against: "frp"}, {bound: 0.85, against: "hop2", of: plain}}},
	{id: Download8CPU, title: "its CPU", unit: "s/GB", less: true, faster: Download8},
	// Below a third, a difference between idle round trips is noise.
	{id: RTTIdleP50, title: "round trip 64 B, idle, p50", unit: "µs", less: true, goals: []goal{{bound: 1.33, against: "hop2"}}},
	{id: RTTIdleP99, title: "the same, p99", unit: "µs", less: true},
	{id: RTTBusyP50, title: "round trip beside a 50 MB/s stream, p50", unit: "µs", less: true},
	{id: RTTBusyP99, title: "the same, p99", unit: "µs", less: true, goals: []goal{{bound: 1.2, against: "hop2"}}},
	{id: Joins, title: "new connections", unit: "1/s", goals: []goal{{bound: 0.7, against: "hop2"}, {bound: 1.5, against: "frp"}}},
	{id: JoinsCPU, title: "CPU of each", unit: "µs", less: true, goals: []goal{{bound: 260}, {bound: 1.54, against: "hop2"}}},
	{id: UDPIdleP50, title: "UDP round trip, idle, p50", unit: "µs", less: true, goals: []goal{{bound: 1.3, against: "hop2"}}},
	{id: UDPIdleP99, title: "the same, p99", unit: "µs", less: true},
	{id: UDPLoad, title: "UDP, 256 in flight over 16 flows, 200 B: round trips", unit: "1/s", goals: []goal{{bound: 1.3, against: "hop2"}}},
	{id: UDPLoadCPU, title: "CPU of each", unit: "µs", less: true, goals: []goal{{bound: 10}, {bound: 0.83, against: "hop2"}}},
	{id: UDPLoadLost, title: "lost of them", unit: "%", less: true},
	{id: UDPOfferedLost, title: "UDP, 20,000/s offered: lost", unit: "%", less: true, goals: []goal{{bound: 0}}},
	{id: UDPOfferedP50, title: "the same, p50", unit: "µs", less: true},
	{id: UDPOfferedP99, title: "the same, p99", unit: "µs", less: true, goals: []goal{{bound: 1.5, against: "hop2"}}},
	{id: IdleMemory, title: "memory of an idle player connection, both ends", unit: "kB", less: true, once: true, goals: []goal{{bound: 50}, {bound: 40, of: plain}}},
	{id: UplinkTCPP50, title: "home uplink, TCP round trip beside a transfer, p50", unit: "ms", less: true, goals: []goal{{bound: 3}}},
	{id: UplinkTCPP99, title: "the same, p99", unit: "ms", less: true, goals: []goal{{bound: 6}}},
	{id: UplinkUDPP50, title: "home uplink, UDP round trip beside a transfer, p50", unit: "ms", less: true, goals: []goal{{bound: 3}}},
	{id: UplinkUDPP99, title: "the same, p99", unit: "ms", less: true, goals: []goal{{bound: 6}}},
	{id: UplinkRate, title: "the transfer beside them", unit: "Mbit/s"},
}, lossRows(), []metric{
	{id: HalfClose, title: "half-close passed on", unit: yesNo, once: true, goals: []goal{{bound: 1}}},
	{id: Stalled, title: "blocked by a stalled reader", unit: yesNo, less: true, once: true, goals: []goal{{bound: 0}}},
})

// describe returns how a metric reads.
func describe(id MetricID) (metric, bool) {
	for _, m := range metrics {
		if m.id == id {
			return m, true
		}
	}
	text, ok := strings.CutPrefix(string(id), udpFlowsPrefix)
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		return metric{}, false
	}
	return metric{
		id: id, title: text + " UDP flows at once: answered", unit: "flows",
		goals: []goal{{bound: float64(n)}},
	}, true
}

// number prints three digits, without an exponent.
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

func truth(v float64) string {
	if v != 0 {
		return "yes"
	}
	return "no"
}

func (m metric) format(v float64) string {
	if m.unit == yesNo {
		return truth(v)
	}
	return number(v)
}
