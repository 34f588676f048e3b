package server_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// certified starts a panel that gets its certificate from an authority.
func certified(t *testing.T, a *acmetest.Authority, listen, http string, change ...func(*server.Options)) *servertest.Panel {
	t.Helper()
	p := servertest.Start(t, append([]func(*server.Options){func(o *server.Options) {
		o.Listen = listen
		o.ACME = server.ACME{
			Domains: []string{"Panel.example.com."}, Email: "ops@example.com", Directory: a.Directory, AcceptTerms: true,
			HTTPListen: http, Client: a.Client,
		}
		o.CertificateInterval = 50 * time.Millisecond
	}}, change...)...)
	transport := newTransport(t)
	transport.TLSClientConfig = &tls.Config{RootCAs: a.Roots, MinVersion: tls.VersionTLS12}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, listen)
	}
	p.Over(transport)
	return p
}

func TestACME_PanelServesACertificateThatItGets(t *testing.T) {
	listen, insecure := acmetest.Free(t), acmetest.Free(t)
	a := acmetest.Start(t, acmetest.Options{TLS: listen, HTTP: insecure, Lifetime: time.Hour})
	registry, database := prometheus.NewPedanticRegistry(), dbtest.URL(t)
	p := certified(t, a, listen, insecure, func(o *server.Options) { o.Metrics, o.Database.URL = registry, database })
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://panel.example.com:" + port; p.URL != want {
		t.Errorf("the URL is %s, want %s", p.URL, want)
	}
	await.Within(t, time.Minute, "a certificate", func(context.Context) (bool, error) {
		_, err := a.Served(t, listen, "panel.example.com")
		return err == nil, err
	})
	admin := p.Admin()
	embedded(t, admin) // The panel's own tunnel server does not need the certificate.
	// It cannot know that people reach it at another port.
	if got := warnings(t, p); len(got) != 2 || got[0].Code != types.WarningPublicURLUnset || got[1].Code != types.WarningSharedHost {
		t.Errorf("warnings %+v", got)
	}
	if ends := metric(t, registry, "eclitunnel_panel_certificate_expiry_timestamp_seconds"); time.Until(time.Unix(int64(ends), 0)) > time.Hour {
		t.Errorf("the certificate ends at %v", ends)
	}

	transport := newTransport(t)
	got := plain(t, transport, "GET", "http://"+insecure+"/device?code=CDFG-2345", "Host", "panel.example.com")
	if location := got.Header.Get("Location"); got.StatusCode != http.StatusTemporaryRedirect || location != p.URL+"/device?code=CDFG-2345" {
		t.Errorf("over HTTP: %d to %s", got.StatusCode, location)
	}
	for path, want := range map[string]int{"/api/auth/login": http.StatusForbidden, "/.well-known/acme-challenge/x": http.StatusNotFound} {
		if got := plain(t, transport, "POST", "http://"+insecure+path); got.StatusCode != want {
			t.Errorf("POST %s over HTTP: %d", path, got.StatusCode)
		}
	}

	// Browsers use HTTPS alone at the panel's own name, and whatever there is at other names that lead here.
	secure := newTransport(t)
	secure.TLSClientConfig = &tls.Config{RootCAs: a.Roots, ServerName: "panel.example.com", MinVersion: tls.VersionTLS12}
	for host, want := range map[string]string{"panel.example.com": "max-age=2592000", "play.example.com": "", listen: ""} {
		if got := plain(t, secure, "GET", "https://"+listen+"/readyz", "Host", host).Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("HSTS at %s: %q, want %q", host, got, want)
		}
	}

	a.Refuse(3 * time.Hour)
	if _, err := dbtest.SQL(t, dbtest.Open(t, database)).ExecContext(t.Context(), `UPDATE acme_certificates SET renew_at = now()`); err != nil {
		t.Fatal(err)
	}
	await.Within(t, time.Minute, "a warning", func(context.Context) (bool, error) {
		got := warnings(t, p)
		return len(got) == 3 && got[1].Code == types.WarningCertificate && strings.Contains(got[1].Message, "too many certificates"), nil
	})
	if ready := plainReady(t, a, listen); ready != http.StatusOK {
		t.Errorf("/readyz is %d", ready)
	}
}

func TestACME_AnswersTheAuthorityOverHTTP(t *testing.T) {
	listen, insecure := acmetest.Free(t), acmetest.Free(t)
	a := acmetest.Start(t, acmetest.Options{TLS: acmetest.Free(t), HTTP: insecure, Lifetime: time.Hour})
	database := dbtest.URL(t)
	secretKey := filepath.Join(t.TempDir(), "secret-keys")
	if err := os.WriteFile(secretKey, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	p := certified(t, a, listen, insecure, withoutTunnelServer, func(o *server.Options) {
		o.Database = server.Database{URL: database, SecretKeyFile: secretKey}
		o.PublicURL = &url.URL{Scheme: "https", Host: "panel.example.com"}
	})
	// The first attempt has failed: the authority does not reach the panel over TLS.
	if _, err := dbtest.SQL(t, dbtest.Open(t, database)).ExecContext(t.Context(), `UPDATE acme_certificates SET retry_at = now()`); err != nil {
		t.Fatal(err)
	}
	await.Within(t, time.Minute, "a certificate", func(context.Context) (bool, error) {
		_, err := a.Served(t, listen, "panel.example.com")
		return err == nil, err
	})
	if got := warnings(t, p); len(got) != 0 {
		t.Errorf("warnings %+v", got)
	}
	var readable int
	err := dbtest.SQL(t, dbtest.Open(t, database)).QueryRowContext(t.Context(), `SELECT count(*) FROM (
		SELECT key FROM acme_accounts UNION ALL SELECT key FROM acme_certificates) k WHERE get_byte(key, 0) <> 1`).Scan(&readable)
	if err != nil || readable != 0 {
		t.Errorf("%d private keys are stored unencrypted, %v", readable, err)
	}
	p.Restart()
	if _, err := a.Served(t, listen, "panel.example.com"); err != nil || a.Orders() != 2 {
		t.Errorf("after a restart: %v, %d orders", err, a.Orders())
	}
}

// plainReady returns the status of /readyz over TLS.
func plainReady(t *testing.T, a *acmetest.Authority, listen string) int {
	t.Helper()
	transport := newTransport(t)
	transport.TLSClientConfig = &tls.Config{RootCAs: a.Roots, ServerName: "panel.example.com", MinVersion: tls.VersionTLS12}
	return plain(t, transport, "GET", "https://"+listen+"/readyz").StatusCode
}

// metric returns the value of a gauge without labels.
func metric(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestACME_SaysWhyThereIsNoCertificate(t *testing.T) {
	var log testlog.Buffer
	listen := acmetest.Free(t)
	a := acmetest.Start(t, acmetest.Options{TLS: acmetest.Free(t), HTTP: acmetest.Free(t), Lifetime: time.Hour})
	certified(t, a, listen, server.NoHTTPListen, withoutTunnelServer, func(o *server.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}) // Returns although there is no certificate.
	await.Within(t, time.Minute, "a failure", func(context.Context) (bool, error) {
		return strings.Contains(log.String(), "certificate not obtained; nobody can use the panel over TLS at this name"), nil
	})
	if _, err := a.Served(t, listen, "panel.example.com"); err == nil {
		t.Error("a certificate is served")
	}
	// Health checks find the panel all the same, without which nothing would lead the authority to it.
	transport := newTransport(t)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := plain(t, transport, "GET", "https://"+listen+path); got.StatusCode != http.StatusOK {
			t.Errorf("%s is %d", path, got.StatusCode)
		}
	}
}

func TestNew_SaysWhatIsWrongWithTheSettingsOfACME(t *testing.T) {
	good := server.Options{
		Database: server.Database{URL: "postgres://localhost/x"},
		ACME:     server.ACME{Domains: []string{"panel.example.com", "www.example.com"}, Email: "ops@example.com", AcceptTerms: true},
	}
	if _, err := server.New(good); err != nil {
		t.Fatal(err)
	}
	for said, change := range map[string]func(*server.Options){
		"not both":               func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = "cert.pem", "key.pem" },
		"(--acme-domain), not":   func(o *server.Options) { o.TLSKeyFile = "key.pem" },
		"given without a domain": func(o *server.Options) { o.ACME.Domains = nil },
		"no wildcards":           func(o *server.Options) { o.ACME.Domains = []string{"*.example.com"} },
		"without a port":         func(o *server.Options) { o.ACME.Domains = []string{"panel.example.com:443"} },
		"look up":                func(o *server.Options) { o.ACME.Domains = []string{"203.0.113.7"} },
		"can look up":            func(o *server.Options) { o.ACME.Domains = []string{"panel.localhost"} },
		"everybody can look up":  func(o *server.Options) { o.ACME.Domains = []string{"panel"} },
		"--acme-accept-terms":    func(o *server.Options) { o.ACME.AcceptTerms = false },
		"not an address":         func(o *server.Options) { o.ACME.Email = "ops" },
		"https:// URL":           func(o *server.Options) { o.ACME.Directory = "http://authority.example.com/dir" },
		"not a host and port":    func(o *server.Options) { o.ACME.HTTPListen = "80" },
		"within the port range":  func(o *server.Options) { o.ACME.HTTPListen = ":20080" },
		"is not https":           func(o *server.Options) { o.PublicURL = &url.URL{Scheme: "http", Host: "panel.example.com"} },
		"use https":              func(o *server.Options) { o.AllowedOrigins = []string{"http://app.example.com"} },
	} {
		opts := good
		change(&opts)
		if _, err := server.New(opts); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
	}
	opts := good
	opts.PublicURL = &url.URL{Scheme: "https", Host: "panel.example.com"}
	if _, err := server.New(opts); err != nil {
		t.Error(err)
	}
}
