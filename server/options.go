package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
)

// Defaults of Options.
const (
	DefaultListen      = ":8080"
	DefaultRelayListen = ":7443"
	DefaultPortFirst   = 20000
	DefaultPortLast    = 29999
	DefaultKeyRotation = 30 * 24 * time.Hour

	DefaultAuditRetention = 400 * 24 * time.Hour
	// DefaultHSTSMaxAge makes a mistake end by itself within a month: HSTS holds for every
	// port of a host, those of players included.
	DefaultHSTSMaxAge = 30 * 24 * time.Hour
)

// minKeyRotation leaves a key as much time to sign as it was published before that.
const minKeyRotation = 2 * db.KeyLead

// minAuditRetention leaves time to read an entry.
const minAuditRetention = 24 * time.Hour

// maxShutdownGrace is longer than any load balancer needs.
const maxShutdownGrace = 5 * time.Minute

// Options configures a panel. New checks them.
type Options struct {
	// Database is the panel's database. Required.
	Database Database
	// FirstAdmin is the account to create if there is no admin yet. The zero value
	// creates none, and so does NoLocalAccounts.
	FirstAdmin Account

	// Listen is the host and port of the HTTP listener; empty is DefaultListen. With
	// port 0 the system chooses the port: see Server.URL.
	Listen string
	// TLSCertFile and TLSKeyFile are PEM files for HTTPS. If both are empty, the panel
	// serves HTTP, for use behind a proxy that terminates TLS. They are read again when
	// they change.
	TLSCertFile, TLSKeyFile string
	// ACME has the panel get its certificates by itself, in place of these files.
	ACME ACME
	// CertificateInterval is how often the panel looks for a change of its certificate, in
	// the files or by another replica; 0 is 5 seconds.
	CertificateInterval time.Duration
	// PublicURL is the panel's URL for people and agents: a scheme and host without a
	// path. nil is the first domain of ACME, if it has one, and else http or https on
	// localhost, with the listener's port; only this machine can reach localhost.
	PublicURL *url.URL
	// PublicHost is the public host of tunnel servers without their own; empty is
	// PublicURL's.
	PublicHost string
	// TrustedProxies are the networks of proxies whose X-Forwarded-For and
	// X-Forwarded-Proto are trusted.
	TrustedProxies []netip.Prefix
	// AllowedOrigins are the origins, besides the panel's own, whose web pages may use the
	// API, such as https://app.example.com. Cookies count there only where they are sent,
	// which takes pages of the same site. Empty allows none.
	AllowedOrigins []string
	// AgentsDir holds what the panel hands out at /install: files of a release, and their
	// SHA256SUMS. Empty hands out nothing.
	AgentsDir string
	// HSTSMaxAge is for how long browsers that have reached the panel by a name over TLS
	// use nothing else for it; 0 is 30 days, and a negative value does not tell them to.
	HSTSMaxAge time.Duration

	// EcliPanel configures the panel to accept the sessions of EcliPanel.
	EcliPanel EcliPanel
	// NoLocalAccounts switches logins and links by password off. It requires an identity
	// provider. Sessions that exist stay.
	NoLocalAccounts bool
	// IdentityProviders are those at which people log in, from ReadIdentityProviders.
	IdentityProviders []IdentityProvider

	// WebhookPrivateTargets permits webhooks to lead to private addresses, to those of the
	// loopback and of this machine, and to use http. Whoever may create webhooks can then
	// reach what this machine reaches.
	WebhookPrivateTargets bool

	// Lookup returns the addresses of a public host, or of the host of a webhook, that is
	// a name. nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Mail configures how the panel sends mail. The zero value sends none.
	Mail Mail

	// TunnelServer configures the embedded tunnel server.
	TunnelServer TunnelServer
	// Ports is the range from which allocations without a requested port get theirs,
	// on every tunnel server approved here. The zero value is 20000 to 29999.
	Ports PortRange

	// Version and Commit are the response of /api/version.
	Version, Commit string
	// Logger is nil for slog.Default.
	Logger *slog.Logger
	// Metrics registers the metrics of the panel and its tunnel server while they
	// run. One registry serves one panel at a time. nil registers none.
	Metrics prometheus.Registerer
	// Traces sends traces of requests and control-channel messages to a collector, as the
	// variables of OpenTelemetry in the environment say, by OTLP over HTTP. Only one panel
	// of a process should do so: what the SDK reports goes to one log.
	Traces bool
	// KeyRotation is the age at which the key that signs tokens is replaced, at least
	// 48 hours. 0 is 30 days; a negative value disables rotation.
	KeyRotation time.Duration
	// AuditRetention is how long entries of the audit trail are kept, at least 24 hours. 0
	// is 400 days; a negative value keeps them for ever.
	AuditRetention time.Duration
	// ShutdownGrace is how long the panel continues to serve after Run's context has
	// ended, while /readyz reports that it is stopping, so that load balancers stop
	// sending requests here. 0 means not at all.
	ShutdownGrace time.Duration
	// ShutdownTimeout bounds the shutdown after that; 0 is 10 seconds.
	ShutdownTimeout time.Duration
}

// Database configures the panel's database: the operator's Postgres, or an embedded
// one.
type Database struct {
	// URL is a postgres:// URL or a DSN of key=value pairs. If it is empty, the panel
	// runs an embedded Postgres in DataDir.
	URL string
	// DataDir is a directory for the embedded Postgres only. Required if URL is empty.
	DataDir string
	// PostgresBinDir contains initdb and postgres; if empty, they are searched for.
	PostgresBinDir string
	// SecretKeyFile has the keys that encrypt the private keys in the database, those that
	// sign and those of certificates, the one in use first (package atrest). If it is empty,
	// they are stored as they are.
	SecretKeyFile string
}

// String says where it is, without secrets.
func (d Database) String() string {
	if d.URL != "" {
		return db.Describe(d.URL)
	}
	return d.DataDir
}

// Check checks the fields without connecting.
func (d Database) Check() error {
	switch {
	case d.URL != "":
		return db.CheckURL(d.URL)
	case d.DataDir == "":
		return errors.New("database: neither a URL nor a data directory given")
	default:
		return nil
	}
}

// Account is the email and password with which a person logs in.
type Account struct {
	Email, Password string
}

// Mail configures the SMTP server through which the panel sends mail.
type Mail struct {
	// URL is smtp://user@host:587, which requires STARTTLS, or smtps://user@host:465. The ports are the
	// defaults, and the user is optional. smtp://host?starttls=none sends everything unencrypted.
	URL string
	// Password is that of the URL's user.
	Password string
	// From is the sender: an address, or Name <address>. Required with a URL.
	From string
	// RootCAs are the authorities that the server's certificate is checked against; nil is the system's.
	RootCAs *x509.CertPool
}

// TunnelServer configures the embedded tunnel server.
type TunnelServer struct {
	// Disabled disables the embedded tunnel server.
	Disabled bool
	// Name identifies the tunnel server among those of all panels on the database.
	// After a restart with the same name it keeps its allocations. Empty is
	// HostName, and the tunnel server follows when that changes, as long as no other
	// panel runs on the database.
	Name string
	// HostName is the name of this machine; empty asks the operating system.
	HostName string
	// Listen is the host and port of the listener for agents' links and data
	// connections; empty is DefaultRelayListen.
	Listen string
	// BindHost is the IP address on which public ports are bound; empty is all
	// addresses, IPv4 and IPv6.
	BindHost string
	// PlainStreams disables the encryption of players' TCP bytes between the tunnel
	// server and agents with the same setting.
	PlainStreams bool
	// Standby tunes its return after another panel's tunnel server of the same name
	// took over. The zero value is ready for use.
	Standby controlclient.StandbyTimes
}

// PortRange is a range of ports, including both ends.
type PortRange struct {
	First, Last int
}

func (p PortRange) contains(port int) bool { return p.First <= port && port <= p.Last }

// withDefaults returns the options with defaults applied, and checks them.
func (o Options) withDefaults() (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.TunnelServer.Listen == "" {
		o.TunnelServer.Listen = DefaultRelayListen
	}
	if o.TunnelServer.Name == "" && o.TunnelServer.HostName == "" && !o.TunnelServer.Disabled {
		name, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("default name of the tunnel server: %w", err)
		}
		o.TunnelServer.HostName = name
	}
	if o.Ports == (PortRange{}) {
		o.Ports = PortRange{DefaultPortFirst, DefaultPortLast}
	}
	if o.KeyRotation == 0 {
		o.KeyRotation = DefaultKeyRotation
	}
	if o.AuditRetention == 0 {
		o.AuditRetention = DefaultAuditRetention
	}
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = 10 * time.Second
	}
	if o.HSTSMaxAge == 0 {
		o.HSTSMaxAge = DefaultHSTSMaxAge
	}
	var acmeErr, allowedErr, ecliPanelErr error
	o.ACME, acmeErr = o.acmeWithDefaults()
	o.AllowedOrigins, allowedErr = o.parseOrigins("allowed origins", o.AllowedOrigins)
	o.EcliPanel.Origins, ecliPanelErr = o.parseEcliPanelOrigins()
	return o, errors.Join(
		acmeErr,
		allowedErr,
		ecliPanelErr,
		o.Database.Check(),
		o.checkAddresses(),
		o.checkPublic(),
		o.checkTLS(),
		o.checkFirstAdmin(),
		o.checkMail(),
		o.checkTimes(),
		o.EcliPanel.check(),
		o.checkAccounts(),
	)
}

func (o Options) checkTimes() error {
	if o.KeyRotation >= 0 && o.KeyRotation < minKeyRotation {
		return fmt.Errorf("key rotation: %v is less than %v", o.KeyRotation, minKeyRotation)
	}
	if o.AuditRetention >= 0 && o.AuditRetention < minAuditRetention {
		return fmt.Errorf("audit retention: %v is less than %v", o.AuditRetention, minAuditRetention)
	}
	if o.HSTSMaxAge > 0 && o.HSTSMaxAge < time.Second {
		return fmt.Errorf("HSTS max age: %v is less than a second", o.HSTSMaxAge)
	}
	if o.ShutdownGrace < 0 || o.ShutdownGrace > maxShutdownGrace {
		return fmt.Errorf("shutdown grace: %v is not between 0 and %v", o.ShutdownGrace, maxShutdownGrace)
	}
	return nil
}

func (o Options) checkAddresses() error {
	first, last := o.Ports.First, o.Ports.Last
	if first < 1 || last > 65535 || first > last {
		return fmt.Errorf("port range: %d-%d is not a range of ports", first, last)
	}
	if host := o.TunnelServer.BindHost; host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("bind host: %q is not an IP address", host)
		}
	}
	listeners := map[string]string{"listen": o.Listen}
	if !o.TunnelServer.Disabled {
		listeners["relay listen"] = o.TunnelServer.Listen
	}
	if o.ACME.enabled() && o.ACME.HTTPListen != NoHTTPListen {
		listeners["ACME HTTP listen"] = o.ACME.HTTPListen
	}
	for name, address := range listeners {
		_, text, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("%s: %q is not a host and port", name, address)
		}
		port, err := strconv.Atoi(text)
		if err != nil || port < 0 || port > 65535 {
			return fmt.Errorf("%s: %q is not a port", name, text)
		}
		// The port could be given to an allocation, and binding it would fail.
		if !o.TunnelServer.Disabled && o.Ports.contains(port) {
			return fmt.Errorf("%s: port %d is within the port range %d-%d of allocations", name, port, first, last)
		}
	}
	return nil
}

func (o Options) checkPublic() error {
	if u := o.PublicURL; u != nil {
		if u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("public URL: %q is not http or https", u.Redacted())
		}
		if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
			return fmt.Errorf("public URL: %q is not just a scheme and host", u.Redacted())
		}
	}
	if o.PublicHost != "" {
		if err := netaddr.CheckPublicHost(o.PublicHost); err != nil {
			return fmt.Errorf("public host %q: %w", o.PublicHost, err)
		}
	}
	return nil
}

func (o Options) checkFirstAdmin() error {
	if o.FirstAdmin == (Account{}) {
		return nil
	}
	return o.FirstAdmin.Check()
}

func (o Options) checkMail() error {
	switch {
	case o.Mail.URL != "":
		return mail.Options{URL: o.Mail.URL, Password: o.Mail.Password, From: o.Mail.From}.CheckSettings()
	case o.Mail.Password != "" || o.Mail.From != "":
		return errors.New("mail: there is a password or a sender, but no SMTP URL")
	}
	return nil
}

func (o Options) checkTLS() error {
	if (o.TLSCertFile == "") != (o.TLSKeyFile == "") {
		return errors.New("TLS: certificate and key file must be given together")
	}
	return nil
}
