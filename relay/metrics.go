package relay

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// metrics shows a tunnel server's Stats to Prometheus. They are read when they
// are asked for. No label names a device, and none but those of the busiest an
// allocation: there is no bound to how many of those come and go, and Prometheus keeps
// every one it has seen. Of the allocations whose ports refuse much, 20 at a time have
// series; each had many refusals within a minute, and stays until that is over or others
// have far more. So new series come at the pace of attacks, at most 20 allocations a
// minute. A counter that comes back goes on where it was.
type metrics struct{ server *Server }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("eclitunnel_relay_"+name, help, labels, nil)
}

var (
	controlUpDesc = describe("control_channel_up",
		"Whether the tunnel server has a control channel to the panel (1) or not (0).")
	reconnectsDesc = describe("control_channel_reconnects_total",
		"Control channels after the first.")
	portsDesc = describe("ports",
		"Allocations the panel wants here, by protocol and whether their public port is open, draining, or failed to open.", "protocol", "state")
	linksDesc = describe("links",
		"Tunnel clients linked.")
	connectionsDesc = describe("data_connections",
		"Open data connections, by whether they are ready for a player (idle) or in use.", "state")
	handshakesDesc = describe("data_connection_handshakes_total",
		"Data connections ever accepted.")
	playersDesc = describe("players",
		"TCP connections on public ports.")
	joinedDesc = describe("players_joined_total",
		"TCP connections accepted on public ports.")
	refusedDesc = describe("players_refused_total",
		"TCP connections on public ports that were refused, by reason.", "reason")
	allocationRefusedDesc = describe("allocation_players_refused_total",
		"TCP connections refused since the public port was opened, by reason, for the allocations that have refused most in the last minutes.", "allocation", "reason")
	allocationDroppedDesc = describe("allocation_datagrams_dropped_total",
		"Datagrams dropped since the public port was opened, by reason, for the allocations that have refused most in the last minutes.", "allocation", "reason")
	flowsDesc = describe("flows",
		"UDP flows: player addresses talking to an allocation.")
	flowsOpenedDesc = describe("flows_opened_total",
		"UDP flows ever opened.")
	bytesDesc = describe("player_bytes_total",
		"Payload bytes carried, by protocol and direction.", "protocol", "direction")
	datagramsDesc = describe("datagrams_total",
		"Datagrams carried, by direction and transport: sealed packets (packet) or a data connection.", "direction", "way")
	pathsDesc = describe("paths_up",
		"Tunnel clients whose datagrams travel in sealed packets.")
	packetsDesc = describe("packets_total",
		"Sealed packets, by direction.", "direction")
	movesDesc = describe("path_moves_total",
		"Changes of a tunnel client's address that its flows have outlived.")
	packetsDroppedDesc = describe("packets_dropped_total",
		"Sealed packets dropped, by reason.", "reason")
	droppedDesc = describe("datagrams_dropped_total",
		"Datagrams dropped, by reason.", "reason")
)

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(m, ch)
	// Those that come and go: a registry knows a collector by what it describes.
	ch <- allocationRefusedDesc
	ch <- allocationDroppedDesc
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.server.Stats()
	gauge := func(desc *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	up := int64(0)
	if s.ControlChannel {
		up = 1
	}
	gauge(controlUpDesc, up)
	counter(reconnectsDesc, max(s.ControlChannels, 1)-1)
	for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
		gauge(portsDesc, int64(s.Ports[publicport.State{Protocol: protocol, Open: true}]), string(protocol), "open")
		gauge(portsDesc, int64(s.Ports[publicport.State{Protocol: protocol, Draining: true}]), string(protocol), "draining")
		gauge(portsDesc, int64(s.Ports[publicport.State{Protocol: protocol}]), string(protocol), "failed")
	}
	gauge(linksDesc, s.Links)
	gauge(connectionsDesc, s.IdleDataConnections, "idle")
	gauge(connectionsDesc, s.DataConnections-s.IdleDataConnections, "in_use")
	counter(handshakesDesc, s.Handshakes)
	gauge(playersDesc, s.Players)
	counter(joinedDesc, s.PlayersJoined)
	for reason, n := range s.PlayersRefused {
		counter(refusedDesc, n, string(reason))
	}
	for id, refused := range s.Busiest {
		allocation := strconv.FormatInt(id, 10)
		for reason, n := range refused.Players {
			counter(allocationRefusedDesc, n, allocation, string(reason))
		}
		for reason, n := range refused.Datagrams {
			counter(allocationDroppedDesc, n, allocation, string(reason))
		}
	}
	gauge(flowsDesc, s.Flows)
	counter(flowsOpenedDesc, s.FlowsOpened)
	for protocol, traffic := range map[types.Protocol]session.Traffic{types.ProtocolTCP: s.Streams, types.ProtocolUDP: s.Datagrams} {
		counter(bytesDesc, traffic.FromPlayers, string(protocol), "from_players")
		counter(bytesDesc, traffic.ToPlayers, string(protocol), "to_players")
	}
	counter(datagramsDesc, s.Paths.SentDatagrams, "from_players", "packet")
	counter(datagramsDesc, s.Paths.ReceivedDatagrams, "to_players", "packet")
	counter(datagramsDesc, s.OnDataConnections.FromPlayers, "from_players", "data_connection")
	counter(datagramsDesc, s.OnDataConnections.ToPlayers, "to_players", "data_connection")
	gauge(pathsDesc, s.Paths.Up)
	counter(packetsDesc, s.Paths.Received, "from_clients")
	counter(packetsDesc, s.Paths.Sent, "to_clients")
	counter(movesDesc, s.Paths.Moved)
	for reason, n := range s.Paths.Dropped() {
		counter(packetsDroppedDesc, n, reason)
	}
	for reason, n := range s.Dropped {
		counter(droppedDesc, n, reason)
	}
}
