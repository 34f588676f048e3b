// Package acmetest is a certificate authority for tests: Pebble, in this process.
package acmetest

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

// Background is for goleak: what Pebble never ends.
func Background() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks")
}

// Authority is a certificate authority.
type Authority struct {
	Directory string         // The URL of its directory.
	Client    *http.Client   // Trusts that URL.
	Roots     *x509.CertPool // Of what it issues.
	Trusted   []byte         // PEM of what a system trusts that trusts both.

	orders  atomic.Int64
	refuses atomic.Int64
}

// Options configures an Authority.
type Options struct {
	// TLS and HTTP are the addresses at which it validates tls-alpn-01 and http-01, in
	// place of the ports 443 and 80.
	TLS, HTTP string
	// Address is to where every name leads; empty is 127.0.0.1.
	Address string
	// Lifetime is how long its certificates last.
	Lifetime time.Duration
}

// Start starts an authority until the test ends.
func Start(t *testing.T, options Options) *Authority {
	t.Helper()
	linetest.ResolveAll(t, cmp.Or(options.Address, "127.0.0.1"))
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	log := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	store := db.NewMemoryStore()
	issuer := ca.New(log, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "for tests", PromoteCommonName: true, ValidityPeriod: uint64(options.Lifetime / time.Second)},
	})
	validator := va.New(log, port(t, options.HTTP), port(t, options.TLS), false, "", store)
	front := wfe.New(log, store, validator, issuer, []string{"authority.test"}, false, false, 1, 1)
	handler := front.Handler()
	a := &Authority{Roots: x509.NewCertPool()}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/order-plz" {
			a.orders.Add(1)
			if wait := a.refuses.Load(); wait > 0 {
				w.Header().Set("Content-Type", "application/problem+json")
				w.Header().Set("Retry-After", strconv.FormatInt(wait, 10))
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = w.Write([]byte(`{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates"}`))
				return
			}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.Directory, a.Client = server.URL+wfe.DirectoryPath, server.Client()
	t.Cleanup(a.Client.CloseIdleConnections)
	root := issuer.GetRootCert(0).PEM()
	a.Roots.AppendCertsFromPEM(root)
	a.Trusted = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), root...)
	return a
}

func port(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Orders returns the number of certificates that were asked for.
func (a *Authority) Orders() int { return int(a.orders.Load()) }

// Refuse has the authority refuse orders by a rate limit, which lasts for some time; 0 ends
// that.
func (a *Authority) Refuse(d time.Duration) { a.refuses.Store(int64(d / time.Second)) }

// Served returns the certificate that a TLS listener serves for a name, or an error if it
// serves none of the authority's that is valid.
func (a *Authority) Served(t *testing.T, address, name string) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: a.Roots, ServerName: name, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// Free returns an address of this machine with a port that nobody listens on. It is below 20000: the system
// hands out others to connections, which could take it before the test does.
func Free(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(10000)))
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
