package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

// certificates are the panel's: from files, or by ACME. They change while it runs.
type certificates interface {
	Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	Status() []certificate.Status
	Run(ctx context.Context) error
}

// certificates returns nil without TLS, and until the first certificates are looked for.
func (s *Server) certificates() certificates {
	if c := s.certificateSource.Load(); c != nil {
		return *c
	}
	return nil
}

// keepCertificates serves certificates, and has them kept up to date, until the panel stops.
func (s *Server) keepCertificates(life context.Context, c certificates) {
	s.certificateSource.Store(&c)
	s.background(life, "certificates", c.Run)
}

// configureTLS sets what listen needs for TLS; s.tls stays nil for HTTP.
func (s *Server) configureTLS() (err error) {
	if s.opts.TLSCertFile != "" {
		s.certificateFiles, err = certificate.NewFiles(certificate.FilesOptions{
			Certificate: s.opts.TLSCertFile, Key: s.opts.TLSKeyFile, Logger: s.logger, Every: s.opts.CertificateInterval,
		})
		if err != nil {
			return fmt.Errorf("load TLS certificate: %w", err)
		}
	} else if !s.opts.ACME.enabled() {
		return nil
	}
	if s.own, err = newOwnCertificate(); err != nil {
		return fmt.Errorf("certificate of the panel's own: %w", err)
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificateFor}
	if s.opts.ACME.enabled() {
		s.tls.NextProtos = []string{"h2", "http/1.1", acme.ALPNProto}
	}
	return nil
}

// certificateFor is tls.Config.GetCertificate. While there is no other certificate it returns the panel's own: a
// load balancer whose health checks get no answer would not let the authority's challenge through, and so there
// would never be one.
func (s *Server) certificateFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == s.own.name {
		return &s.own.certificate, nil
	}
	if c := s.certificates(); c != nil {
		if served, err := c.Get(hello); !errors.Is(err, certificate.ErrNone) {
			return served, err
		}
	}
	return &s.own.certificate, nil
}

// certificateWarnings says which certificates cannot be obtained, renewed or read.
func (s *Server) certificateWarnings() []types.SettingsWarning {
	c := s.certificates()
	if c == nil {
		return nil
	}
	var warnings []types.SettingsWarning
	for _, status := range c.Status() {
		if status.Failure == "" {
			continue
		}
		ends := status.NotAfter.UTC().Format(time.RFC3339)
		failure := strings.TrimSuffix(status.Failure, ".")
		next := ""
		if !status.RetryAt.IsZero() {
			next = fmt.Sprintf(" The next attempt is at %s.", status.RetryAt.UTC().Format(time.RFC3339))
		}
		var message string
		switch {
		case status.NotAfter.IsZero():
			message = fmt.Sprintf("There is no certificate for %s: %s.%s", status.Name, failure, next)
		case status.RetryAt.IsZero():
			message = fmt.Sprintf("The certificate %s could not be read again: %s. The one before is served, which ends at %s.", status.Name, failure, ends)
		default:
			message = fmt.Sprintf("The certificate for %s, which ends at %s, could not be renewed: %s.%s", status.Name, ends, failure, next)
		}
		warnings = append(warnings, types.SettingsWarning{Code: types.WarningCertificate, Message: message})
	}
	return warnings
}

// certificateExpiry returns when the first of the panel's certificates ends.
func (s *Server) certificateExpiry() (first time.Time, ok bool) {
	c := s.certificates()
	if c == nil {
		return time.Time{}, false
	}
	for _, status := range c.Status() {
		if !status.NotAfter.IsZero() && (!ok || status.NotAfter.Before(first)) {
			first, ok = status.NotAfter, true
		}
	}
	return first, ok
}

// ownCertificate is what the panel's own tunnel server, a client of the same process,
// asks for: there may be no other certificate yet, and others are replaced. Others get it
// while there is none.
type ownCertificate struct {
	name        string // A name that no domain has.
	certificate tls.Certificate
}

func newOwnCertificate() (*ownCertificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(rand.Text()) + ".internal"
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &ownCertificate{name, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}
