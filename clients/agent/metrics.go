package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// metrics shows an agent's counts to Prometheus. They are read when they are
// asked for. No label names an allocation or a tunnel server: what is wrong with
// which of them the log says and the panel shows.
type metrics struct {
	links   *links
	control *control
}

func metricDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("eclitunnel_agent_"+name, help, labels, nil)
}

var (
	controlUpDesc = metricDesc("control_channel_up",
		"Whether the agent has a control channel to the panel (1) or not (0).")
	reconnectsDesc = metricDesc("control_channel_reconnects_total",
		"Control channels after the first.")
	linksDesc = metricDesc("links",
		"Links to tunnel servers, by state.", "state")
	allocationsDesc = metricDesc("allocations",
		"Allocations the panel wants here, by what the agent knows of them.", "state")
	connectionsDesc = metricDesc("data_connections",
		"Open data connections, by what they carry.", "kind")
	flowsDesc = metricDesc("flows",
		"UDP flows: players talking to a local target.")
	bytesDesc = metricDesc("player_bytes_total",
		"Payload bytes carried, by protocol and direction.", "protocol", "direction")
	pathsDesc = metricDesc("paths_up",
		"Tunnel servers to which datagrams travel in sealed packets.")
	packetsDesc = metricDesc("packets_total",
		"Sealed packets, by direction.", "direction")
	packetsDroppedDesc = metricDesc("packets_dropped_total",
		"Sealed packets dropped, by reason.", "reason")
	droppedDesc = metricDesc("datagrams_dropped_total",
		"Datagrams dropped, by reason.", "reason")
	failuresDesc = metricDesc("target_dial_failures_total",
		"Players whose local target could not be dialled.")
)

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	up := int64(0)
	if m.control.Connected() {
		up = 1
	}
	gauge(controlUpDesc, up)
	counter(reconnectsDesc, max(m.control.Channels(), 1)-1)
	links := m.links.countLinks()
	for state, name := range map[linkState]string{linkDialling: "dialling", linkUp: "up", linkDown: "down"} {
		gauge(linksDesc, int64(links[state]), name)
	}
	allocations := m.links.countAllocations()
	for state, name := range map[types.AllocationReportState]string{"": "pending", types.ReportReady: "ready", types.ReportFailed: "failed"} {
		gauge(allocationsDesc, int64(allocations[state]), name)
	}
	c := &m.links.counters
	for _, kind := range []wire.Kind{wire.KindStream, wire.KindDatagram} {
		gauge(connectionsDesc, c.connections(kind).Load(), string(kind))
	}
	gauge(flowsDesc, c.udp.Flows.Load())
	counter(bytesDesc, c.streams.Received.Load(), string(types.ProtocolTCP), "from_players")
	counter(bytesDesc, c.streams.Sent.Load(), string(types.ProtocolTCP), "to_players")
	counter(bytesDesc, c.udp.Datagrams.ReceivedBytes.Load(), string(types.ProtocolUDP), "from_players")
	counter(bytesDesc, c.udp.Datagrams.SentBytes.Load(), string(types.ProtocolUDP), "to_players")
	paths := c.udp.Paths.Stats()
	gauge(pathsDesc, paths.Up)
	counter(packetsDesc, paths.Received, "from_servers")
	counter(packetsDesc, paths.Sent, "to_servers")
	for reason, n := range paths.Dropped() {
		counter(packetsDroppedDesc, n, reason)
	}
	for reason, n := range m.links.drops() {
		counter(droppedDesc, n, reason)
	}
	counter(failuresDesc, m.links.targets.Stats().DialFailures)
}
