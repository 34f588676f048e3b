package deploy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/internal/diagnostics"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

var (
	// ours are the names of metrics of this project, and others those of the
	// process and the runtime.
	ours   = regexp.MustCompile(`\beclitunnel_[a-z0-9_]+`)
	others = regexp.MustCompile(`\b(?:process|go)_[a-z0-9_]+`)
)

// underAttack are the metrics that a tunnel server shows of allocations under attack only.
var underAttack = []string{
	"eclitunnel_relay_allocation_players_refused_total", "eclitunnel_relay_allocation_datagrams_dropped_total",
}

// certify writes a certificate and its key.
func certify(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	borrowed := httptest.NewTLSServer(http.NotFoundHandler())
	defer borrowed.Close()
	certificate := borrowed.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("tls.crt", "CERTIFICATE", certificate.Certificate[0]), write("tls.key", "PRIVATE KEY", key)
}

func endpoint(t *testing.T, program string) *diagnostics.Endpoint {
	t.Helper()
	e, err := diagnostics.Start(t.Context(), diagnostics.Options{MetricsListen: "127.0.0.1:0", Program: program, Version: "test", Commit: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// scrape returns the names of the series that an endpoint shows.
func scrape(t *testing.T, e *diagnostics.Endpoint) map[string]bool {
	t.Helper()
	resp, err := http.Get("http://" + e.Addrs()[0].String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	names := map[string]bool{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if name, _, ok := strings.Cut(lines.Text(), "{"); ok || !strings.HasPrefix(name, "#") {
			name, _, _ = strings.Cut(name, " ")
			names[name] = true
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// runningSystem is what a panel with HTTPS and an agent show once the agent is
// connected.
func runningSystem(t *testing.T) map[string]bool {
	t.Helper()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	atPanel, atAgent := endpoint(t, "eclitunneld"), endpoint(t, "eclitunnel")
	certFile, keyFile := certify(t)
	panel := servertest.Start(t, func(o *server.Options) {
		o.TLSCertFile, o.TLSKeyFile, o.Metrics = certFile, keyFile, atPanel.Metrics()
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	panel.Over(transport)
	device := panel.Enroll("home-server")

	client, err := tunnel.New(tunnel.Options{
		PanelURL: panel.URL, Token: func() string { return device.Token }, HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	connected := make(chan struct{}, 1)
	home, err := agent.New(agent.Options{Client: client, Metrics: atAgent.Metrics(), OnEvent: func(e agent.Event) {
		if e.Type == agent.EventConnected {
			connected <- struct{}{}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- home.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-connected:
	case err := <-ended:
		ended <- err
		t.Fatalf("the agent ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the agent does not connect")
	}
	names := scrape(t, atPanel)
	maps.Copy(names, scrape(t, atAgent))
	return names
}

func TestMetrics_AreScrapedWhereTheyAreNamed(t *testing.T) {
	scraped := runningSystem(t)
	for _, file := range []string{"prometheus/alerts.yaml", "prometheus/alerts_test.yaml", "grafana/eclitunnel.json"} {
		text := read(t, "deploy", file)
		named := append(ours.FindAllString(text, -1), others.FindAllString(text, -1)...)
		if len(named) == 0 {
			t.Errorf("%s names no metric", file)
		}
		slices.Sort(named)
		for _, name := range slices.Compact(named) {
			if !scraped[name] {
				t.Errorf("%s names %s, which nothing shows", file, name)
			}
		}
	}

	manual := read(t, "docs", "operations.md")
	documented := map[string]bool{}
	for _, name := range ours.FindAllString(manual, -1) {
		documented[name] = true
	}
	shown := map[string]bool{}
	for name := range scraped {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} { // Of a histogram.
			name = strings.TrimSuffix(name, suffix)
		}
		shown[name] = true
		if ours.MatchString(name) && !documented[name] {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
	for _, name := range underAttack {
		shown[name] = true
		if !documented[name] {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
	for name := range documented {
		if !shown[name] {
			t.Errorf("docs/operations.md explains %s, which nothing shows", name)
		}
	}
}
