package diagnostics_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/diagnostics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, metrics, profiles string) *diagnostics.Endpoint {
	t.Helper()
	e, err := diagnostics.Start(t.Context(), diagnostics.Options{
		MetricsListen: metrics, ProfilesListen: profiles, Program: "test", Version: "1.2.3", Commit: "abc",
	})
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

func get(t *testing.T, address net.Addr, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + address.String() + path)
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
	e := start(t, "127.0.0.1:0", "")
	part := prometheus.NewGauge(prometheus.GaugeOpts{Name: "eclitunnel_test_parts", Help: "Parts."})
	if err := e.Metrics().Register(part); err != nil {
		t.Fatal(err)
	}
	status, body := get(t, e.Addrs()[0], "/metrics")
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

func TestEndpoint_ServesMetricsAndProfilesApart(t *testing.T) {
	loopback := "127.0.0.1:0"
	// Twice the same address is one listener, and another spelling of it a second one.
	both, apart := start(t, loopback, loopback), start(t, loopback, "localhost:0")
	onlyMetrics, onlyProfiles := start(t, loopback, ""), start(t, "", loopback)
	if onlyProfiles.Metrics() != nil {
		t.Error("without metrics there is a registry")
	}
	if n := len(both.Addrs()); n != 1 {
		t.Errorf("%d listeners for one address", n)
	}
	for _, c := range []struct {
		name              string
		address           net.Addr
		metrics, profiles bool
	}{
		{"both on one address", both.Addrs()[0], true, true},
		{"metrics beside profiles", apart.Addrs()[0], true, false},
		{"profiles beside metrics", apart.Addrs()[1], false, true},
		{"metrics alone", onlyMetrics.Addrs()[0], true, false},
		{"profiles alone", onlyProfiles.Addrs()[0], false, true},
	} {
		for path, served := range map[string]bool{
			"/metrics":                        c.metrics,
			"/debug/pprof/":                   c.profiles,
			"/debug/pprof/goroutine":          c.profiles,
			"/debug/pprof/heap":               c.profiles,
			"/debug/pprof/cmdline":            c.profiles,
			"/debug/pprof/trace?seconds=0.01": c.profiles,
			"/":                               false,
			"/debug/vars":                     false,
			"/api/version":                    false,
		} {
			want := http.StatusNotFound
			if served {
				want = http.StatusOK
			}
			if status, _ := get(t, c.address, path); status != want {
				t.Errorf("%s: %s: status %d, want %d", c.name, path, status, want)
			}
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
	taken := start(t, "127.0.0.1:0", "").Addrs()[0].String()
	for what, o := range map[string]diagnostics.Options{
		"metrics":  {MetricsListen: taken},
		"profiles": {MetricsListen: "127.0.0.1:0", ProfilesListen: taken},
	} {
		_, err := diagnostics.Start(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "listen for "+what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
