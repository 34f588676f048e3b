package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/connlimit"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
)

// censusTimeout bounds the counting of devices and allocations for a scrape, which
// omits them if the database is slow.
const censusTimeout = 2 * time.Second

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("eclitunnel_panel_"+name, help, labels, nil)
}

var (
	onlineDesc = describe("devices_online",
		"Devices whose control channel is on this replica, by kind.", "kind")
	openedDesc = describe("control_channels_opened_total",
		"Control channels opened, by the device's kind.", "kind")
	closedDesc = describe("control_channels_closed_total",
		"Control channels ended, by reason.", "reason")
	devicesDesc = describe("devices",
		"Approved devices in the database, by kind; every replica shows the same.", "kind")
	allocationsDesc = describe("allocations",
		"Allocations in the database, by status; every replica shows the same.", "status")
	connectionsDesc = describe("database_connections",
		"Connections to the database, by state.", "state")
	maxConnectionsDesc = describe("database_connections_max",
		"Maximum number of connections to the database.")
	waitsDesc = describe("database_waits_total",
		"Number of waits for a connection to the database.")
	waitedDesc = describe("database_wait_seconds_total",
		"Time spent waiting for a connection to the database.")
	httpConnectionsDesc = describe("http_connections",
		"Connections to the HTTP listener that are no control channels, by whether a trusted proxy, or this machine, opened them.", "from")
	httpClosedDesc = describe("http_connections_closed_total",
		"Connections to the HTTP listener that were closed because there were too many, by reason.", "reason")
	unaskedDesc = describe("attempts_refused_total",
		"Logins and tokens refused without a query because their source was over a limit.")
	slowedDesc = describe("logins_slowed_total",
		"Logins slowed down, or refused, because of failures for their account from unknown addresses and browsers.")
	laneConnectionsDesc = describe("database_lane_connections",
		"Connections to the database in use, by lane; no lane takes those of another.", "lane")
	laneMaxDesc = describe("database_lane_connections_max",
		"Maximum number of connections to the database, by lane.", "lane")
	laneWaitingDesc = describe("database_lane_waiting",
		"Statements that wait for a connection to the database, by lane.", "lane")
	laneWaitsDesc = describe("database_lane_waits_total",
		"Number of waits for a connection to the database, by lane.", "lane")
	laneRefusedDesc = describe("database_lane_refused_total",
		"Statements that got no connection to the database because too many others waited, by lane.", "lane")
	webhookAttemptsDesc = describe("webhook_attempts_total",
		"Attempts of this replica to send messages of webhooks, by result.", "result")
	webhookEndedDesc = describe("webhook_messages_failed_total",
		"Messages of webhooks whose last attempt, by this replica, failed.")
	webhookPendingDesc = describe("webhook_messages_pending",
		"Messages of webhooks that wait to be sent; every replica shows the same.")
	streamsDesc = describe("event_streams",
		"Event streams on this replica.")
	streamsOpenedDesc = describe("event_streams_opened_total",
		"Event streams opened.")
	eventsDesc = describe("events_sent_total",
		"Events for streams: each event counts once for each stream.")
	resyncsDesc = describe("event_resyncs_total",
		"Streams told to read everything again, because events were missing or their callers see other things now.")
	certificateDesc = describe("certificate_expiry_timestamp_seconds",
		"Unix time at which the certificate served with HTTPS expires.")
)

// metrics is a Prometheus collector for the panel. Its labels are kinds, statuses and
// reasons, never devices or allocations, whose number is unbounded.
type metrics struct{ panel *Server }

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		onlineDesc, openedDesc, closedDesc, devicesDesc, allocationsDesc,
		connectionsDesc, maxConnectionsDesc, waitsDesc, waitedDesc, certificateDesc,
		httpConnectionsDesc, httpClosedDesc, unaskedDesc, slowedDesc,
		laneConnectionsDesc, laneMaxDesc, laneWaitingDesc, laneWaitsDesc, laneRefusedDesc,
		webhookAttemptsDesc, webhookEndedDesc, webhookPendingDesc,
		streamsDesc, streamsOpenedDesc, eventsDesc, resyncsDesc,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	channels := m.panel.hub.Stats()
	for _, kind := range []types.DeviceKind{types.DeviceKindClient, types.DeviceKindServer} {
		gauge(ch, onlineDesc, float64(channels.Online[kind]), string(kind))
		counter(ch, openedDesc, float64(channels.Opened[kind]), string(kind))
	}
	for _, ending := range control.Endings {
		counter(ch, closedDesc, float64(channels.Closed[ending]), string(ending))
	}
	connections := m.panel.connections
	gauge(ch, httpConnectionsDesc, float64(connections.people.Len()), "callers")
	gauge(ch, httpConnectionsDesc, float64(connections.proxied.Len()), "proxies")
	for _, reason := range connlimit.Reasons {
		counter(ch, httpClosedDesc, float64(connections.people.Closed(reason)+connections.proxied.Closed(reason)), string(reason))
	}
	counter(ch, unaskedDesc, float64(m.panel.auth.Refused()))
	counter(ch, slowedDesc, float64(m.panel.auth.Slowed()))
	pool := m.panel.db.PoolStats()
	gauge(ch, connectionsDesc, float64(pool.InUse), "in_use")
	gauge(ch, connectionsDesc, float64(pool.Idle), "idle")
	gauge(ch, maxConnectionsDesc, float64(pool.Max))
	counter(ch, waitsDesc, float64(pool.Waits))
	counter(ch, waitedDesc, pool.Waited.Seconds())
	for name, lane := range pool.Lanes {
		gauge(ch, laneConnectionsDesc, float64(lane.InUse), string(name))
		gauge(ch, laneMaxDesc, float64(lane.Max), string(name))
		gauge(ch, laneWaitingDesc, float64(lane.Waiting), string(name))
		counter(ch, laneWaitsDesc, float64(lane.Waits), string(name))
		counter(ch, laneRefusedDesc, float64(lane.Refused), string(name))
	}
	streams := m.panel.events.Stats()
	gauge(ch, streamsDesc, float64(streams.Streams))
	counter(ch, streamsOpenedDesc, float64(streams.Opened))
	counter(ch, eventsDesc, float64(streams.Events))
	counter(ch, resyncsDesc, float64(streams.Resyncs))
	if expiry, ok := m.panel.certificateExpiry(); ok {
		gauge(ch, certificateDesc, float64(expiry.Unix()))
	}
	m.collectWebhooks(ch)
	m.collectCensus(ch)
}

// collectWebhooks collects the metrics of webhooks. If the database does not respond, the number of waiting messages is
// missing.
func (m metrics) collectWebhooks(ch chan<- prometheus.Metric) {
	sent := m.panel.webhooks.Stats()
	counter(ch, webhookAttemptsDesc, float64(sent.Delivered), "delivered")
	counter(ch, webhookAttemptsDesc, float64(sent.Failed), "failed")
	counter(ch, webhookEndedDesc, float64(sent.Ended))
	ctx, cancel := context.WithTimeout(context.Background(), censusTimeout)
	defer cancel()
	pending, err := m.panel.db.PendingDeliveries(ctx)
	if err != nil {
		m.panel.logger.DebugContext(ctx, "messages of webhooks not counted", slog.Any("error", err))
		return
	}
	gauge(ch, webhookPendingDesc, float64(pending))
}

// collectCensus collects the metrics of the database's content. If the database does
// not respond, only these are missing.
func (m metrics) collectCensus(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), censusTimeout)
	defer cancel()
	census, err := m.panel.db.Census(ctx)
	if err != nil {
		m.panel.logger.DebugContext(ctx, "devices and allocations not counted", slog.Any("error", err))
		return
	}
	devices := map[string]int{db.KindClient: 0, db.KindServer: 0}
	for _, d := range census.Devices {
		devices[d.Kind] = d.Approved
	}
	for kind, n := range devices {
		gauge(ch, devicesDesc, float64(n), kind)
	}
	allocations := map[types.AllocationStatus]int{
		types.AllocationPending: 0, types.AllocationListening: 0, types.AllocationDraining: 0,
		types.AllocationFailed: 0, types.AllocationOffline: 0, types.AllocationPaused: 0,
	}
	for _, a := range census.Allocations {
		status, _ := handler.AllocationStatus(db.Allocation{
			DeviceOnline: a.DeviceOnline, ServerOnline: a.ServerOnline,
			ServerState: a.ServerState, ClientState: a.ClientState, Draining: a.Draining, Enabled: a.Enabled,
		})
		allocations[status] += a.Count
	}
	for status, n := range allocations {
		gauge(ch, allocationsDesc, float64(n), string(status))
	}
}

func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func counter(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
}

// latency records how long requests take. Requests outside the contract, such as those
// for a page, have the operation "other".
type latency struct{ seconds *prometheus.HistogramVec }

func newLatency() latency {
	return latency{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "eclitunnel_panel_http_request_duration_seconds",
		Help:    "Duration of requests, by operation of the contract and class of the status.",
		Buckets: []float64{0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 10},
	}, []string{"operation", "status"})}
}

// observe records a request. It ignores upgrades and event streams, which last as long as their callers like.
func (l latency) observe(operation string, status int, took time.Duration) {
	if status < 200 || operation == "streamEvents" && status == http.StatusOK {
		return
	}
	if operation == "" {
		operation = "other"
	}
	l.seconds.WithLabelValues(operation, strconv.Itoa(status/100)+"xx").Observe(took.Seconds())
}

// startMetrics registers the panel's metrics with Options.Metrics until the panel
// stops.
func (s *Server) startMetrics() error {
	registry := s.opts.Metrics
	if registry == nil {
		return nil
	}
	for _, collector := range []prometheus.Collector{metrics{s}, s.latency.seconds} {
		if err := registry.Register(collector); err != nil {
			return err
		}
		s.addPart("metrics", func(context.Context) error {
			registry.Unregister(collector)
			return nil
		})
	}
	return nil
}
