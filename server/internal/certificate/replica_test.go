package certificate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

const domain = "panel.example.com"

// patience bounds a wait for the authority, which takes seconds for each certificate.
const patience = time.Minute

// replica is a Keeper with its listeners.
type replica struct {
	*certificate.Keeper
	tls, http string // Their addresses.
	close     func() // Closes them.
	log       testlog.Buffer
}

// store is a database that fails to save certificates now and then.
type store struct {
	*db.DB
	saves atomic.Int64
}

func (s *store) SaveCertificate(ctx context.Context, a db.CertificateAttempt, c db.Certificate, renewIn time.Duration) error {
	if s.saves.Add(1)%3 != 0 {
		return errors.New("the database does not respond")
	}
	return s.DB.SaveCertificate(ctx, a, c, renewIn)
}

// answering returns a replica that answers the authority's challenges and asks for nothing.
func answering(t *testing.T, d *db.DB, more ...string) *replica {
	return newReplica(t, d, &acmetest.Authority{Directory: "https://authority.test/dir"}, more...)
}

// asking returns some replicas that ask an authority.
func asking(t *testing.T, d *db.DB, a *acmetest.Authority, count int) []*replica {
	t.Helper()
	replicas := make([]*replica, count)
	for i := range replicas {
		replicas[i] = newReplica(t, d, a)
	}
	for _, r := range replicas {
		r.run(t)
	}
	return replicas
}

func newReplica(t *testing.T, d *db.DB, a *acmetest.Authority, more ...string) *replica {
	t.Helper()
	return newReplicaOf(t, &store{DB: d}, a, more...)
}

func newReplicaOf(t *testing.T, s certificate.Store, a *acmetest.Authority, more ...string) *replica {
	t.Helper()
	r := new(replica)
	options := certificate.Options{
		Store: s, Directory: a.Directory, Client: a.Client, Email: "ops@example.com", Domains: append([]string{domain}, more...),
		HTTP: true, Every: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
	}
	var err error
	if r.Keeper, err = certificate.New(options); err != nil {
		t.Fatal(err)
	}
	r.listen(t)
	return r
}

// listen has a replica serve TLS and HTTP.
func (r *replica) listen(t *testing.T) {
	t.Helper()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1", acme.ALPNProto},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return r.Get(hello) },
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// httptest's own TLS has a certificate of its own.
	secure.Listener.Close()
	secure.Listener = tls.NewListener(listener, secure.TLS)
	secure.Start()
	t.Cleanup(secure.Close)
	insecure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) { r.ServeHTTP(w, request) }))
	t.Cleanup(insecure.Close)
	r.close = func() { secure.Close(); insecure.Close() }
	r.tls, r.http = listener.Addr().String(), insecure.Listener.Addr().String()
}

// run runs a replica until the test ends.
func (r *replica) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
}

// serves waits until a replica serves a valid certificate that is not another one.
func (r *replica) serves(t *testing.T, a *acmetest.Authority, not *x509.Certificate) *x509.Certificate {
	t.Helper()
	var served *x509.Certificate
	await.Within(t, patience, "a certificate", func(context.Context) (bool, error) {
		var err error
		served, err = a.Served(t, r.tls, domain)
		return err == nil && (not == nil || !served.Equal(not)), err
	})
	return served
}

// fails waits until a replica knows that an attempt has failed, for a reason that has some
// words in it.
func (r *replica) fails(t *testing.T, reason string) certificate.Status {
	t.Helper()
	var status []certificate.Status
	await.Within(t, patience, "a failure: "+reason, func(context.Context) (bool, error) {
		status = r.Status()
		return len(status) == 1 && status[0].Failure != "" && strings.Contains(status[0].Failure, reason), nil
	})
	return status[0]
}
