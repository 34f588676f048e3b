package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// certify creates a certificate for 127.0.0.1 and returns its files, which begin with a
// byte-order mark as some editors write, and a pool that trusts it.
func certify(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, append([]byte("\uFEFF"), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", private), roots
}

func TestPanel_ServesTLSAlsoToItsOwnTunnelServer(t *testing.T) {
	certFile, keyFile, roots := certify(t)
	p := servertest.Start(t, func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = certFile, keyFile })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	p.Over(transport)

	login, err := p.Client("").LoginWithResponse(t.Context(), types.LoginRequest{Email: servertest.AdminEmail, Password: servertest.AdminPassword})
	if err != nil || login.JSON200 == nil {
		t.Fatalf("%v %s", err, login.Body)
	}
	if cookie := login.HTTPResponse.Header.Get("Set-Cookie"); !strings.HasPrefix(p.URL, "https://") || !strings.Contains(cookie, "Secure") {
		t.Errorf("%s sets %q", p.URL, cookie)
	}
	embedded(t, p.Client(login.JSON200.Token))
}

func TestPanel_ReadsItsCertificateAgain(t *testing.T) {
	certFile, keyFile, _ := certify(t)
	registry := prometheus.NewPedanticRegistry()
	p := servertest.Start(t, func(o *server.Options) {
		o.TLSCertFile, o.TLSKeyFile, o.CertificateInterval, o.Metrics = certFile, keyFile, 10*time.Millisecond, registry
	})
	newCert, newKey, roots := certify(t)
	for from, to := range map[string]string{newCert: certFile, newKey: keyFile} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	transport := newTransport(t)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	p.Over(transport)
	await.Until(t, "the new certificate", func() bool {
		resp, err := p.HTTP.Get(p.URL + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})

	// The panel's own tunnel server connects again.
	admin := p.Admin()
	before := embedded(t, admin)
	if resp, err := admin.DeleteDeviceWithResponse(t.Context(), before.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("%v %s", err, resp.Body)
	}
	await.Until(t, "another tunnel server", func() bool { return embedded(t, admin).ID != before.ID })

	warned := func(w types.SettingsWarning) bool {
		return w.Code == types.WarningCertificate && strings.Contains(w.Message, certFile)
	}
	if got := warnings(t, p); slices.ContainsFunc(got, warned) {
		t.Errorf("warnings %+v", got)
	}
	if err := os.WriteFile(certFile, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "a warning", func() bool { return slices.ContainsFunc(warnings(t, p), warned) })
	if ends := metric(t, registry, "eclitunnel_panel_certificate_expiry_timestamp_seconds"); time.Until(time.Unix(int64(ends), 0)) > time.Hour {
		t.Errorf("the certificate ends at %v", ends)
	}
}
