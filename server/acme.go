package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
)

// Defaults of ACME.
const (
	DefaultACMEDirectory  = acme.LetsEncryptURL
	DefaultACMEHTTPListen = ":80"
	// NoHTTPListen has the panel open no listener for http-01.
	NoHTTPListen = "off"
)

// certificateTimeout bounds the wait for the first certificates when the panel starts.
const certificateTimeout = 10 * time.Second

// ACME has the panel get its certificates from an authority by itself (RFC 8555), and
// renew them. The zero value does not.
type ACME struct {
	// Domains are the panel's names, each of which gets a certificate. The first one is
	// the host of the panel's URL if there is no PublicURL.
	Domains []string
	// Email is where the authority may reach the operator; empty gives it none.
	Email string
	// Directory is the URL of the authority's directory; empty is Let's Encrypt.
	Directory string
	// AcceptTerms says that the operator accepts the authority's terms of service.
	// Required.
	AcceptTerms bool
	// HTTPListen is the host and port of a listener that the authority reaches on port 80
	// of the domains. It answers http-01 challenges, and redirects people to HTTPS. Empty
	// is DefaultACMEHTTPListen. With NoHTTPListen there is only tls-alpn-01, for which the
	// authority must reach Listen on port 443.
	HTTPListen string
	// Client sends the requests to the authority; nil is http.DefaultClient.
	Client *http.Client
}

func (a ACME) enabled() bool { return len(a.Domains) > 0 }

// acmeWithDefaults returns Options.ACME with defaults applied, and checks it.
func (o Options) acmeWithDefaults() (ACME, error) {
	a := o.ACME
	if !a.enabled() {
		if a.Email != "" || a.Directory != "" || a.AcceptTerms || a.HTTPListen != "" && a.HTTPListen != DefaultACMEHTTPListen {
			return a, errors.New("ACME: options of it are given without a domain (--acme-domain)")
		}
		return a, nil
	}
	if o.TLSCertFile != "" || o.TLSKeyFile != "" {
		return a, errors.New("TLS: give certificate files (--tls-cert-file, --tls-key-file) or ACME domains (--acme-domain), not both")
	}
	if a.Directory == "" {
		a.Directory = DefaultACMEDirectory
	}
	if a.HTTPListen == "" {
		a.HTTPListen = DefaultACMEHTTPListen
	}
	domains := make([]string, 0, len(a.Domains))
	for _, domain := range a.Domains {
		canonical := netaddr.Canonical(strings.TrimSpace(domain))
		if err := checkDomain(canonical); err != nil {
			return a, fmt.Errorf("ACME domain %q: %w", domain, err)
		}
		if !slices.Contains(domains, canonical) {
			domains = append(domains, canonical)
		}
	}
	a.Domains = domains
	if u := o.PublicURL; u != nil && u.Scheme == "http" {
		return a, fmt.Errorf("ACME: the public URL %q is not https", u.Redacted())
	}
	return a, a.check()
}

func checkDomain(domain string) error {
	if strings.Contains(domain, "*") {
		return errors.New("there are no wildcards: list each name")
	}
	if err := netaddr.CheckPublicHost(domain); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(domain); err == nil || !strings.Contains(domain, ".") || !netaddr.IsPublicName(domain) {
		return errors.New("must be a name that everybody can look up, such as panel.example.com")
	}
	return nil
}

func (a ACME) check() error {
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("ACME directory: %q is not an https:// URL", a.Directory)
	}
	if a.Email != "" {
		if address, err := mail.ParseAddress(a.Email); err != nil || address.Address != a.Email {
			return fmt.Errorf("ACME email: %q is not an address such as you@example.com", a.Email)
		}
	}
	if !a.AcceptTerms {
		return fmt.Errorf("ACME: the terms of service of the authority %s are not accepted; read them, and then accept them with --acme-accept-terms", a.Directory)
	}
	return nil
}

// acmeURL returns the panel's URL for people and agents: the first domain at the port of
// the listener.
func (s *Server) acmeURL() *url.URL {
	u := &url.URL{Scheme: "https", Host: s.opts.ACME.Domains[0]}
	if tcp, ok := s.listener.Addr().(*net.TCPAddr); ok && tcp.Port != 443 {
		u.Host = net.JoinHostPort(u.Host, strconv.Itoa(tcp.Port))
	}
	return u
}

// listenACME opens the listener for http-01.
func (s *Server) listenACME(ctx context.Context) error {
	if !s.opts.ACME.enabled() || s.opts.ACME.HTTPListen == NoHTTPListen {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.ACME.HTTPListen)
	if err != nil {
		return fmt.Errorf("listen for challenges of the certificate authority: %w (--acme-http-listen %s does without)", err, NoHTTPListen)
	}
	s.acmeListener = listener
	return nil
}

// acceptACME serves the listener for http-01.
func (s *Server) acceptACME(life context.Context) {
	if s.acmeListener == nil {
		return
	}
	server := s.newHTTP(life)
	server.TLSConfig, server.Handler = nil, http.HandlerFunc(s.serveInsecure)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(s.acmeListener); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serve challenges: %w", err))
		}
	}()
	s.addPart("challenge listener", func(context.Context) error {
		err := server.Close()
		<-ended
		return err
	})
}

// serveInsecure answers challenges, and redirects people to HTTPS.
func (s *Server) serveInsecure(w http.ResponseWriter, r *http.Request) {
	defer s.connections.serve(r)()
	if certificate.IsChallenge(r) {
		keeper, ok := s.certificates().(*certificate.Keeper)
		if !ok {
			http.Error(w, "The panel is starting.", http.StatusServiceUnavailable)
			return
		}
		keeper.ServeHTTP(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		// What it carries was sent unencrypted. A redirect would hide that.
		http.Error(w, "Use "+s.url.String()+", over HTTPS.", http.StatusForbidden)
		return
	}
	target := *s.url
	target.Path, target.RawPath, target.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	// Not for good: browsers would keep a wrong port after --public-url was mended.
	http.Redirect(w, r, target.String(), http.StatusTemporaryRedirect)
}

// startACME gets certificates, and renews them, until the panel stops.
func (s *Server) startACME(ctx, life context.Context) error {
	// Those of an earlier start, which may have been with other settings, are secrets too.
	a := s.opts.ACME
	lost, err := s.db.EncryptCertificateKeys(ctx, a.Directory, a.Domains)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		s.logger.WarnContext(ctx, "the private keys of certificates are encrypted with a secret key that is not in --secret-key-file: "+
			"the panel gets other certificates", slog.Any("domains", lost))
	}
	if !a.enabled() {
		return nil
	}
	keeper, err := certificate.New(certificate.Options{
		Store: s.db, Directory: a.Directory, Email: a.Email, Domains: a.Domains,
		HTTP: s.acmeListener != nil, Client: a.Client, Logger: s.logger, Every: s.opts.CertificateInterval,
	})
	if err != nil {
		return err
	}
	if host := netaddr.Canonical(s.url.Hostname()); !slices.Contains(a.Domains, host) {
		s.logger.WarnContext(life, "the host of --public-url is none of --acme-domain: its certificate is not that of the host",
			slog.String("publicUrl", s.url.String()))
	}
	s.keepCertificates(life, keeper)
	return nil
}

// awaitCertificates returns once it is known whether there are certificates: people and
// agents come when the panel says that it is ready.
func (s *Server) awaitCertificates(ctx context.Context) {
	keeper, ok := s.certificates().(*certificate.Keeper)
	if !ok {
		return
	}
	timer := time.NewTimer(certificateTimeout)
	defer timer.Stop()
	select {
	case <-keeper.Settled():
	case <-timer.C:
	case <-ctx.Done():
	}
}
