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
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
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
