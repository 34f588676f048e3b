package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// series returns the content of a registry, each series as name{label="value"} value
// with a histogram's count as its value.
func series(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all[strings.TrimPrefix(family.GetName(), "eclitunnel_")+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

func TestMetrics_CoverThePanelAndItsTunnelServer(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	p := servertest.Start(t, func(o *server.Options) { o.Metrics = registry })
	admin := p.Admin()
	device := p.Enroll("gaming-rig")
	agent := p.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)
	created := allocate(t, admin, device, types.CreateTCPUDP)
	curl(t, p, http.MethodGet, "/api/tunnel/devices", "", "")
	curl(t, p, http.MethodGet, "/nowhere", "", "")
	controltest.Eventually(t, "the tunnel server has opened the ports", func() bool {
		return series(t, registry)[`relay_ports{protocol="udp",state="open"}`] == 1
	})

	got := series(t, registry)
	for name, want := range map[string]float64{
		`panel_devices_online{kind="client"}`:                                            1,
		`panel_devices_online{kind="server"}`:                                            1,
		`panel_devices{kind="client"}`:                                                   1,
		`panel_devices{kind="server"}`:                                                   1,
		`panel_control_channels_opened_total{kind="client"}`:                             1,
		`panel_control_channels_closed_total{reason="lost"}`:                             0,
		`panel_allocations{status="pending"}`:                                            2,
		`panel_allocations{status="failed"}`:                                             0,
		`panel_database_connections_max{}`:                                               16,
		`panel_database_lane_connections_max{lane="requests"}`:                           7,
		`panel_database_lane_connections_max{lane="devices"}`:                            7,
		`panel_database_lane_connections_max{lane="leases"}`:                             2,
		`panel_database_lane_refused_total{lane="requests"}`:                             0,
		`panel_http_request_duration_seconds{operation="createAllocation",status="2xx"}`: 1,
		`panel_http_request_duration_seconds{operation="listDevices",status="4xx"}`:      1,
		`panel_http_request_duration_seconds{operation="other",status="4xx"}`:            1,
		`relay_control_channel_up{}`:                                                     1,
		`relay_ports{protocol="tcp",state="open"}`:                                       1,
		`relay_ports{protocol="tcp",state="failed"}`:                                     0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v (%t), want %v", name, value, ok, want)
		}
	}
	for name := range got {
		if strings.Contains(name, "openControlChannel") || strings.Contains(name, "101") {
			t.Errorf("a control channel is counted as a request: %s", name)
		}
		if strings.Contains(name, device.ID.String()) || strings.Contains(name, created.ServerID.String()) {
			t.Errorf("a series with a device's id: %s", name)
		}
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}

	if resp, err := admin.DeleteDeviceWithResponse(t.Context(), device.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	controltest.Eventually(t, "the device's end is counted", func() bool {
		now := series(t, registry)
		return now[`panel_control_channels_closed_total{reason="deleted"}`] == 1 && now[`panel_devices_online{kind="client"}`] == 0
	})
	p.Stop()
	if left := series(t, registry); len(left) > 0 {
		t.Errorf("after the panel has stopped: %v", left)
	}
}

func TestMetrics_ContainTheExpiryOfTheCertificate(t *testing.T) {
	certFile, keyFile, _ := certify(t)
	registry := prometheus.NewPedanticRegistry()
	servertest.Start(t, func(o *server.Options) {
		o.TLSCertFile, o.TLSKeyFile, o.Metrics = certFile, keyFile, registry
	})
	if expiry := series(t, registry)[`panel_certificate_expiry_timestamp_seconds{}`]; expiry == 0 {
		t.Error("there is no expiry")
	}
}
