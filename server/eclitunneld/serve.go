package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/diagnostics"
	"github.com/eclitunnel/eclitunnel/internal/files"
	"github.com/eclitunnel/eclitunnel/server"
)

type serveCommand struct {
	Listen          string        `default:":8080" placeholder:"HOST:PORT" help:"Address of the API, the control channels and the web pages (default: :8080)."`
	PublicURL       *url.URL      `name:"public-url" placeholder:"URL" help:"URL at which people and agents reach the panel, such as https://panel.example.com (default: https:// and the first --acme-domain, and else http://localhost with the port of --listen, for this machine only)."`
	PublicHost      string        `placeholder:"HOST" help:"Host name or IP address that players enter (default: the host of --public-url)."`
	TLSCertFile     string        `name:"tls-cert-file" placeholder:"FILE" help:"PEM certificate chain for HTTPS, read again when it changes. Without it, and without --acme-domain, the panel serves HTTP, for use behind a proxy."`
	TLSKeyFile      string        `name:"tls-key-file" placeholder:"FILE" help:"PEM private key of --tls-cert-file."`
	ACMEDomain      []string      `name:"acme-domain" placeholder:"NAME" help:"Get and renew a certificate for this name of the panel by ACME, in place of --tls-cert-file; several with commas between them. The authority must reach --listen on port 443 of the name, or --acme-http-listen on port 80 (default: none)."`
	ACMEEmail       string        `name:"acme-email" placeholder:"EMAIL" help:"Where the certificate authority may reach you (default: none)."`
	ACMEDirectory   string        `name:"acme-directory" placeholder:"URL" help:"ACME directory of the certificate authority (default: Let's Encrypt, ${acme_directory})."`
	ACMEAcceptTerms bool          `name:"acme-accept-terms" help:"Accept the terms of service of the certificate authority, which --acme-domain requires (default: false)."`
	ACMEHTTPListen  string        `name:"acme-http-listen" default:":80" placeholder:"HOST:PORT" help:"Address that answers the certificate authority over HTTP and redirects people to HTTPS, with --acme-domain only; off opens none (default: :80)."`
	TrustedProxies  []network     `placeholder:"NETWORK" help:"Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto headers are trusted (default: none)."`
	AllowedOrigins  []string      `placeholder:"ORIGIN" help:"Origins whose web pages may use the API, such as https://app.example.com, with commas between them (default: none but the panel's own)."`
	AgentsDir       string        `placeholder:"DIR" help:"Directory with the agents that the panel hands out at /install: the files of a release that its SHA256SUMS lists (default: agents beside the program, or else /usr/share/eclitunnel/agents, where there is one)."`
	HSTSMaxAge      time.Duration `name:"hsts-max-age" default:"720h" placeholder:"DURATION" help:"For how long browsers that have reached the panel by a name over TLS use nothing else for this host, on any port; 0 does not tell them to (default: 720h)."`

	TunnelServer     bool      `default:"true" negatable:"" help:"Run the embedded tunnel server (default: true)."`
	TunnelServerName string    `placeholder:"NAME" help:"Name of the embedded tunnel server, unique among panels that share a database. Its ports belong to this name (default: the machine's host name; if that changes, the only panel on a database keeps its ports)."`
	RelayListen      string    `default:":7443" placeholder:"HOST:PORT" help:"Address on which the tunnel server accepts agents, over TCP and UDP (default: :7443)."`
	BindHost         string    `placeholder:"ADDRESS" help:"Address on which public ports are opened (default: all addresses, IPv4 and IPv6)."`
	PlainStreams     bool      `help:"Do not encrypt players' TCP bytes between the tunnel server and agents that also have this flag. Only for networks that are already encrypted, or trusted (default: false)."`
	PortRange        portRange `default:"20000-29999" placeholder:"FIRST-LAST" help:"Public ports for allocations that request no particular one, on every tunnel server approved here (default: 20000-29999)."`

	AdminEmail        string `placeholder:"EMAIL" help:"Create this admin if there is none yet, with the password in $$ECLITUNNEL_ADMIN_PASSWORD."`
	AdminPasswordFile string `placeholder:"FILE" help:"Read the password of --admin-email from this file."`

	SMTPURL          string `name:"smtp-url" placeholder:"URL" help:"Mail server that takes the panel's mail: smtp://user@host:587 requires STARTTLS, smtps://user@host:465 is TLS from the start; the ports are the defaults, and the user is optional. smtp://host:25?starttls=none sends unencrypted, for a server on this machine (default: no mail is sent)."`
	SMTPPasswordFile string `name:"smtp-password-file" placeholder:"FILE" help:"Read the password of the user in --smtp-url from this file."`
	MailFrom         string `placeholder:"EMAIL" help:"Sender of mail, as noreply@example.com or 'Name <noreply@example.com>'. Required with --smtp-url."`

	WebhookPrivateTargets bool `help:"Permit webhooks to private addresses, to this machine, and over http; anyone with an account can then make the panel send requests there (default: false)."`

	LocalAccounts bool           `default:"true" negatable:"" help:"Let people log in by a password; false requires an identity provider, by --eclipanel-url or --identity-providers (default: true)."`
	EcliPanel     eclipanelFlags `embed:"" prefix:"eclipanel-"`

	IdentityProviders string `placeholder:"FILE" help:"Let people log in at the identity providers that this file in YAML or JSON describes, by OpenID Connect or OAuth 2; docs/identity.md explains it (default: none)."`

	KeyRotation    time.Duration `default:"720h" placeholder:"DURATION" help:"Age at which a new key replaces the one that signs tokens, at least 48h; 0 means never (default: 720h)."`
	AuditRetention time.Duration `default:"9600h" placeholder:"DURATION" help:"How long entries of the audit trail are kept, at least 24h; 0 means for ever (default: 9600h)."`
	ShutdownGrace  time.Duration `default:"0s" placeholder:"DURATION" help:"How long to keep serving after SIGTERM, while /readyz answers 503, so that a load balancer notices (default: 0s)."`

	MetricsListen  string `placeholder:"HOST:PORT" help:"Address of /metrics for Prometheus. Restrict it to the operator's network (default: none)."`
	ProfilesListen string `placeholder:"HOST:PORT" help:"Address of /debug/pprof/, which shows the panel's memory, including secrets. Restrict it to this machine (default: none)."`

	databaseFlags `embed:""`
	logFlags      `embed:""`
}

// eclipanelFlags are server.EcliPanel.
type eclipanelFlags struct {
	URL        *url.URL      `name:"url" placeholder:"URL" help:"Accept the sessions and keys of the EcliPanel at this URL, which is asked whose they are (default: none)."`
	Cookie     string        `default:"token" placeholder:"NAME" help:"Name of EcliPanel's session cookie (default: token)."`
	Origins    []string      `placeholder:"ORIGIN" help:"Origins of EcliPanel's pages, which may use the API as those of --allowed-origins may, such as https://panel.example.com, with commas between them (default: that of --eclipanel-url)."`
	AdminRoles []string      `default:"*,admin,rootAdmin" placeholder:"NAME" help:"Roles at EcliPanel that are admins here (default: *,admin,rootAdmin)."`
	CacheTime  time.Duration `default:"10s" placeholder:"DURATION" help:"How long EcliPanel's answers are kept, at most 5m: a session that ends there is accepted here that long (default: 10s)."`
	Features   bool          `help:"Switch tunnels on and off as EcliPanel's feature tunnels is (default: false)."`
}

func (c *serveCommand) Run(ctx context.Context, out console) (err error) {
	options, err := c.options()
	if err != nil {
		return err
	}
	options.Logger = c.logger(out.stderr)
	if options.Traces, err = traced(os.Getenv); err != nil {
		return err
	}
	secrets := []string{c.DatabaseURLFile, c.AdminPasswordFile, c.TLSKeyFile, c.SMTPPasswordFile, c.SecretKeyFile}
	for _, provider := range options.IdentityProviders {
		secrets = append(secrets, provider.ClientSecretFile)
	}
	for _, file := range secrets {
		if exposed := files.Exposure(file); exposed != nil {
			options.Logger.WarnContext(ctx, "a secret is not private", slog.Any("error", exposed))
		}
	}
	endpoint, err := diagnostics.Start(ctx, diagnostics.Options{
		MetricsListen: c.MetricsListen, ProfilesListen: c.ProfilesListen,
		Program: "eclitunneld", Version: version, Commit: commit, Logger: options.Logger,
	})
	if err != nil {
		return err
	}
	// Closed last, so that a panel that hangs while stopping can be inspected.
	defer func() { err = errors.Join(err, endpoint.Close()) }()
	options.Metrics = endpoint.Metrics()
	panel, err := server.New(options)
	if err != nil {
		return usageError{err}
	}
	return panel.Run(ctx)
}

func (c *serveCommand) options() (server.Options, error) {
	database, err := c.database()
	if err != nil {
		return server.Options{}, err
	}
	password, err := secret("ADMIN_PASSWORD", c.AdminPasswordFile)
	if err != nil {
		return server.Options{}, err
	}
	smtpPassword, err := secret("SMTP_PASSWORD", c.SMTPPasswordFile)
	if err != nil {
		return server.Options{}, err
	}
	var providers []server.IdentityProvider
	if c.IdentityProviders != "" {
		if providers, err = server.ReadIdentityProviders(c.IdentityProviders); err != nil {
			return server.Options{}, usageError{fmt.Errorf("identity providers: %w", err)}
		}
	}
	proxies := make([]netip.Prefix, len(c.TrustedProxies))
	for i, proxy := range c.TrustedProxies {
		proxies[i] = proxy.Prefix
	}
	if c.EcliPanel.AdminRoles == nil { // The flag, or its variable, is empty.
		c.EcliPanel.AdminRoles = []string{}
	}
	return server.Options{
		Database:    database,
		FirstAdmin:  server.Account{Email: c.AdminEmail, Password: password},
		Listen:      c.Listen,
		TLSCertFile: c.TLSCertFile,
		TLSKeyFile:  c.TLSKeyFile,
		ACME: server.ACME{
			Domains:     c.ACMEDomain,
			Email:       c.ACMEEmail,
			Directory:   c.ACMEDirectory,
			AcceptTerms: c.ACMEAcceptTerms,
			HTTPListen:  c.ACMEHTTPListen,
		},
		PublicURL:      c.PublicURL,
		PublicHost:     c.PublicHost,
		TrustedProxies: proxies,
		AllowedOrigins: c.AllowedOrigins,
		AgentsDir:      findAgents(c.AgentsDir),
		HSTSMaxAge:     neverIfZero(c.HSTSMaxAge),
		Mail:           server.Mail{URL: c.SMTPURL, Password: smtpPassword, From: c.MailFrom},

		IdentityProviders: providers,

		WebhookPrivateTargets: c.WebhookPrivateTargets,

		TunnelServer: server.TunnelServer{
			Disabled: !c.TunnelServer,
			Name:     c.TunnelServerName,
			Listen:   c.RelayListen,
			BindHost: c.BindHost,

			PlainStreams: c.PlainStreams,
		},
		Ports:           server.PortRange(c.PortRange),
		EcliPanel:       server.EcliPanel(c.EcliPanel),
		NoLocalAccounts: !c.LocalAccounts,

		KeyRotation:    neverIfZero(c.KeyRotation),
		AuditRetention: neverIfZero(c.AuditRetention),
		ShutdownGrace:  c.ShutdownGrace,
		Version:        version,
		Commit:         commit,
	}, nil
}

// neverIfZero converts from the flag, where 0 means never, to the option, where 0 means
// the default.
func neverIfZero(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// portRange is the flag value FIRST-LAST.
type portRange server.PortRange

func (r *portRange) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	var err1, err2 error
	r.First, err1 = strconv.Atoi(first)
	r.Last, err2 = strconv.Atoi(last)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("%q is not FIRST-LAST", text)
	}
	return nil
}

// network is the flag value of an address or a network in CIDR notation.
type network struct{ netip.Prefix }

func (n *network) UnmarshalText(text []byte) error {
	if address, err := netip.ParseAddr(string(text)); err == nil {
		n.Prefix = netip.PrefixFrom(address, address.BitLen())
		return nil
	}
	return n.Prefix.UnmarshalText(text)
}
