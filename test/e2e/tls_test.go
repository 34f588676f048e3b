package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// certify writes a certificate for 127.0.0.1, and its key, below dir, and returns who
// trusts it.
func certify(t *testing.T, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		// curl takes none without a subject.
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	certFile, keyFile = filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")
	writeFile(t, certFile, cert, 0o644)
	writeFile(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
	return certFile, keyFile, roots
}

// A panel that ends TLS itself speaks HTTP/2 to people's programs and to the agent's
// commands, while control channels are upgraded from HTTP/1.1.
func TestPanel_EnrollsAndRunsAgentsOverItsOwnTLS(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	dir, err := cluster.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	certFile, keyFile, roots := certify(t, t.TempDir())
	ports, err := cluster.FreePorts(ctx, 12)
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + loopback(ports)
	panel := cluster.NewPanel(cluster.PanelOptions{
		Bin: binaries, Dir: dir, Listen: ports, Relay: ports + 1, PortFirst: ports + 2, PortLast: ports + 11, PublicURL: url,
		Env: []string{"ECLITUNNEL_TLS_CERT_FILE=" + certFile, "ECLITUNNEL_TLS_KEY_FILE=" + keyFile},
	})
	panel.URL = url
	if err := panel.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(panel.LastLines(40))
		}
		if err := panel.Stop(); err != nil {
			t.Error(err)
		}
	})

	// HTTP/2 alone: nothing is fallen back to.
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: protocols}
	defer transport.CloseIdleConnections()
	over := client.WithHTTPClient(&http.Client{Transport: cluster.Kept().Transport(transport)})
	api, err := client.NewClientWithResponses(url, over)
	if err != nil {
		t.Fatal(err)
	}
	await.Within(t, patience, "readiness of the panel", func(ctx context.Context) (bool, error) {
		answer, err := api.GetReadinessWithResponse(ctx)
		return err == nil && answer.StatusCode() == http.StatusOK, nil
	})
	login, err := api.LoginWithResponse(ctx, types.LoginRequest{Email: cluster.AdminEmail, Password: panel.Password})
	if err != nil || login.JSON200 == nil {
		t.Fatalf("log in: %v %s", err, login.Body)
	}
	panel.Token = login.JSON200.Token
	panel.API, err = client.NewClientWithResponses(url, over, client.WithRequestEditorFn(
		func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+panel.Token)
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}

	agent := cluster.NewAgent(binaries, dir, "home-server", nil)
	agent.Env = []string{"SSL_CERT_FILE=" + certFile}
	if err := agent.Enroll(ctx, panel); err != nil {
		t.Fatal(err)
	}
	running, err := agent.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := panel.AwaitOnline(ctx, agent.Device.ID, running); err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir, panel: panel, agent: agent, running: running}
	game := startEcho(t)
	if err := plays(ctx, w.expose(t, types.CreateTCP, game.port, nil)); err != nil {
		t.Error(err)
	}
}
