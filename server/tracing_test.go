package server_test

import (
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/internal/tracing/tracingtest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// traced has a panel send traces. It has no tunnel server, whose messages would be among them.
func traced(o *server.Options) {
	o.Traces = true
	o.TunnelServer.Disabled = true
}

const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan  = "00f067aa0ba902b7"
)

// poll polls an enrollment as a caller with a trace of its own, and returns the request id.
func poll(t *testing.T, p *servertest.Panel, code, sampled string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/api/tunnel/device/poll?deviceCode="+code, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", "00-"+callersTrace+"-"+callersSpan+"-"+sampled)
	req.Header.Set("Tracestate", "vendor=of-the-caller")
	req.Header.Set("User-Agent", "program-of-the-caller")
	resp, err := p.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("X-Request-Id")
}

func TestPanel_SendsTracesOfRequestsAndMessagesWithoutSecrets(t *testing.T) {
	collector := tracingtest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=of%20the%20collector")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	p := servertest.Start(t, traced)
	session := p.Login()
	curl(t, p, http.MethodPost, "/api/auth/login", "", `{"email":"mallory@example.com","password":"guessed password"}`)
	_, started := curl(t, p, http.MethodPost, "/api/tunnel/device/start", session, `{"name":"gaming-rig"}`)
	code := started["deviceCode"].(string)
	id := poll(t, p, code, "01")
	unrecorded := poll(t, p, code, "00") // The caller does not record its trace.
	curlText(t, p, http.MethodGet, "/healthz", "", "")
	p.Follow(session, "", "")
	await.Until(t, "span of a stream that is open", func() bool { return len(collector.Spans("streamEvents")) == 1 })
	device := p.Enroll("another")
	peer := p.Connect(device)
	snapshot := controltest.Next[types.ClientSnapshot](peer)
	peer.Send(types.StatusReport{Type: types.TypeStatus, Revision: snapshot.Revision, Allocations: []types.AllocationReport{}})
	peer.Send(types.UsageReport{Type: types.TypeUsage, Sequence: 1}) // Which clients do not send.
	peer.Closed(controltest.Patience)
	p.Stop()

	for name, want := range map[string]map[string]string{
		"pollEnrollment": {
			"http.request.method": "GET", "http.route": "/api/tunnel/device/poll", "http.response.status_code": "200", "eclitunnel.request.id": id,
		},
		"connectControlChannel": {"http.response.status_code": "101"},
		"streamEvents":          {"http.response.status_code": "200"},
		"receive hello":         {"eclitunnel.device.id": device.ID.String(), "eclitunnel.device.kind": "client", "eclitunnel.message.outcome": "accepted"},
		"send client.snapshot":  {"eclitunnel.device.id": device.ID.String(), "eclitunnel.message.direction": "send", "eclitunnel.message.outcome": "queued"},
		"receive status":        {"eclitunnel.message.type": "status", "eclitunnel.message.outcome": "accepted"},
		"receive usage":         {"eclitunnel.device.kind": "client", "eclitunnel.message.outcome": "refused"},
	} {
		spans := collector.Spans(name)
		if len(spans) == 0 {
			t.Errorf("there is no span %q", name)
			continue
		}
		got := tracingtest.Attributes(spans[0])
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got[key], value)
			}
		}
	}
	if spans := collector.Spans("getHealth"); len(spans) > 0 {
		t.Error("a probe has a span")
	}
	polls := collector.Spans("pollEnrollment")
	if hex.EncodeToString(polls[0].GetTraceId()) != callersTrace || hex.EncodeToString(polls[0].GetParentSpanId()) != callersSpan {
		t.Errorf("the span is not part of the caller's trace: %v", polls[0])
	}
	for _, span := range polls {
		if got := tracingtest.Attributes(span)["eclitunnel.request.id"]; got == unrecorded {
			t.Error("a request has a span although its caller does not record the trace")
		}
	}
	if got := collector.Service(); got["service.name"] != "eclitunneld" || got["service.version"] != "0.0.0-test" || got["deployment.environment.name"] != "test" {
		t.Errorf("the service is %v", got)
	}
	if got := collector.Headers()[0].Get("X-Collector-Key"); got != "of the collector" {
		t.Errorf("the collector got the key %q", got)
	}
	for name, secret := range map[string]string{
		"session token": session, "device code": code, "device token": device.Token, "password": servertest.AdminPassword, "wrong password": "guessed password",
		"email": "mallory@example.com", "device's name": "gaming-rig", "tracestate": "of-the-caller", "program": "program-of", "address": "127.0.0.1",
	} {
		if collector.Contains(secret) {
			t.Errorf("the traces have a %s", name)
		}
	}
}

func TestPanel_ServesAndStopsWhileTheCollectorHangs(t *testing.T) {
	collector, err := net.Listen("tcp", "127.0.0.1:0") // Nobody accepts, so nobody answers.
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+collector.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2") // Most spans find the queue full.
	var log testlog.Buffer
	p := servertest.Start(t, traced, func(o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.ShutdownTimeout = 2 * time.Second
	})
	for range 20 {
		if status, _ := curl(t, p, http.MethodGet, "/api/version", "", ""); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
	}
	p.Stop() // It fails the test if the panel does not stop cleanly, and so does a goroutine that is left.
	if n := strings.Count(log.String(), "traces not sent"); n != 1 {
		t.Errorf("%d lines say that traces are not sent, want 1:\n%s", n, log.String())
	}
}

func TestPanel_SendsNoTracesUnlessToldTo(t *testing.T) {
	collector := tracingtest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	p := servertest.Start(t, func(o *server.Options) { o.TunnelServer.Disabled = true })
	curl(t, p, http.MethodGet, "/api/version", "", "")
	p.Stop()
	if n := len(collector.Headers()); n != 0 {
		t.Errorf("the collector got %d requests", n)
	}
}
