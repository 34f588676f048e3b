package diagnostics_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/diagnostics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *diagnostics.Endpoint {
	t.Helper()
	e, err := diagnostics.Start(t.Context(), diagnostics.Options{Listen: "127.0.0.1:0", Program: "test", Version: "1.2.3", Commit: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func get(t *testing.T, e *diagnostics.Endpoint, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + e.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestEndpoint_ServesMetricsOfTheProgramAndItsParts(t *testing.T) {
	e := start(t)
	part := prometheus.NewGauge(prometheus.GaugeOpts{Name: "eclitunnel_test_parts", Help: "Parts."})
	if err := e.Metrics().Register(part); err != nil {
		t.Fatal(err)
	}
	status, body := get(t, e, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{
		`eclitunnel_build_info{commit="abc",goversion="go`, `program="test",version="1.2.3"} 1`,
		"eclitunnel_test_parts 0", "go_goroutines ", "process_start_time_seconds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestEndpoint_ServesProfilesAndNothingElse(t *testing.T) {
	e := start(t)
	for path, want := range map[string]int{
		"/debug/pprof/":                   http.StatusOK,
		"/debug/pprof/goroutine":          http.StatusOK,
		"/debug/pprof/cmdline":            http.StatusOK,
		"/debug/pprof/trace?seconds=0.01": http.StatusOK,
		"/":                               http.StatusNotFound,
		"/debug/vars":                     http.StatusNotFound,
		"/api/version":                    http.StatusNotFound,
	} {
		if status, _ := get(t, e, path); status != want {
			t.Errorf("%s: status %d, want %d", path, status, want)
		}
	}
}

func TestEndpoint_WithoutAnAddressIsNone(t *testing.T) {
	e, err := diagnostics.Start(t.Context(), diagnostics.Options{})
	if err != nil || e != nil {
		t.Fatalf("%v, %v", e, err)
	}
	if e.Metrics() != nil {
		t.Error("it has a registry")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestStart_SaysWhereItCannotListen(t *testing.T) {
	taken := start(t)
	_, err := diagnostics.Start(t.Context(), diagnostics.Options{Listen: taken.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "listen for metrics") {
		t.Errorf("%v", err)
	}
}
