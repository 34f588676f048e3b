package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// metrics exports an agent's counts to Prometheus. They are read when collected. No
// label names an allocation or a tunnel server: the log and the panel show the state
// of each.
type metrics struct {
	control *control
	links   *link.Manager
	targets *target.Dialer
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
		"Allocations desired by the panel, by state.", "state")
	connectionsDesc = metricDesc("data_connections",
		"Open data connections, by what they carry.", "kind")
	flowsDesc = metricDesc("flows",
		"Open UDP flows.")
	bytesDesc = metricDesc("player_bytes_total",
		"Payload bytes carried, by protocol and direction.", "protocol", "direction")
	pathsDesc = metricDesc("paths_up",
		"UDP sessions whose datagrams travel in sealed packets.")
	packetsDesc = metricDesc("packets_total",
		"Sealed packets, by direction.", "direction")
	packetsDroppedDesc = metricDesc("packets_dropped_total",
		"Sealed packets dropped, by reason.", "reason")
	droppedDesc = metricDesc("datagrams_dropped_total",
		"Datagrams dropped, by reason.", "reason")
	failuresDesc = metricDesc("target_dial_failures_total",
		"Failed dials of local targets.")
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
	links, targets := m.links.Stats(), m.targets.Stats()
	gauge(linksDesc, int64(links.LinksDialling), "dialling")
	gauge(linksDesc, int64(links.LinksUp), "up")
	gauge(linksDesc, int64(links.LinksDown), "down")
	gauge(allocationsDesc, int64(links.AllocationsPending), "pending")
	gauge(allocationsDesc, int64(links.AllocationsReady), "ready")
	gauge(allocationsDesc, int64(links.AllocationsFailed), "failed")
	gauge(connectionsDesc, links.TCPConnections, string(wire.KindStream))
	gauge(connectionsDesc, links.UDPConnections, string(wire.KindDatagram))
	gauge(flowsDesc, links.Flows)
	counter(bytesDesc, links.TCP.FromPlayers, string(types.ProtocolTCP), "from_players")
	counter(bytesDesc, links.TCP.ToPlayers, string(types.ProtocolTCP), "to_players")
	counter(bytesDesc, links.UDP.FromPlayers, string(types.ProtocolUDP), "from_players")
	counter(bytesDesc, links.UDP.ToPlayers, string(types.ProtocolUDP), "to_players")
	gauge(pathsDesc, links.Paths.Up)
	counter(packetsDesc, links.Paths.Received, "from_servers")
	counter(packetsDesc, links.Paths.Sent, "to_servers")
	for reason, n := range links.Paths.Dropped() {
		counter(packetsDroppedDesc, n, reason)
	}
	for reason, n := range map[string]uint64{
		"queue_full":         links.QueueFull,
		"no_data_connection": links.NoDataConnection,
		"no_flow":            links.NoFlow,
		"too_long":           links.TooLong + targets.TooLong,
		"waiting_limit":      targets.WaitingLimit,
		"unsendable":         targets.Unsendable,
	} {
		counter(droppedDesc, n, reason)
	}
	counter(failuresDesc, targets.DialFailures)
}
