package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/db"
)

// Defaults of Options.
const (
	DefaultListen      = ":8080"
	DefaultRelayListen = ":7443"
	DefaultPortFirst   = 20000
	DefaultPortLast    = 29999
	DefaultKeyRotation = 30 * 24 * time.Hour
)

// minKeyRotation leaves a key time to sign after that in which it is only
// published.
const minKeyRotation = 2 * db.KeyLead

// maxShutdownGrace is more than any load balancer needs.
const maxShutdownGrace = 5 * time.Minute

// Options say how a panel runs. New checks them before anything starts.
type Options struct {
	// Database is where everything durable is. Required.
	Database Database
	// FirstAdmin is made where there is no admin yet; the zero value makes none.
	FirstAdmin Account

	// Listen is the host and port of the HTTP listener; empty is DefaultListen.
	// Port 0 lets the system choose: see Server.URL.
	Listen string
	// TLSCertFile and TLSKeyFile are PEM files to serve HTTPS with. Both empty
	// serve HTTP, for use behind a proxy that ends TLS.
	TLSCertFile, TLSKeyFile string
	// PublicURL is where people and agents reach the panel: scheme and host, no
	// path. nil is http (or https) on localhost with the listener's port, which
	// only this machine reaches.
	PublicURL *url.URL
	// PublicHost is the host that players enter, where a tunnel server was not
	// given another one; empty is PublicURL's.
	PublicHost string
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix

	// TunnelServer is the embedded tunnel server.
	TunnelServer TunnelServer
	// Ports are given to allocations that ask for none, on every tunnel server
	// that is approved here. The zero value is 20000 to 29999.
	Ports PortRange

	// Version and Commit are what /api/version answers.
	Version, Commit string
	// Logger is nil for slog.Default.
	Logger *slog.Logger
	// Metrics is given the metrics of the panel and of its tunnel server, for as
	// long as they run. It may hold those of one panel at a time. nil: none.
	Metrics prometheus.Registerer
	// KeyRotation is the age at which the key that signs tokens is followed by
	// another; 0: 30 days, below 0: never. At least 48 hours otherwise.
	KeyRotation time.Duration
	// ShutdownGrace is how long the panel serves on once Run's context has ended,
	// while /readyz says that it is stopping: what a load balancer needs to notice
	// and send nobody here any more. 0: not at all.
	ShutdownGrace time.Duration
	// ShutdownTimeout bounds the end of Run after that; 0: 10 s.
	ShutdownTimeout time.Duration
}

// Database says where the panel keeps its data: in a Postgres of the operator's,
// or in one of its own.
type Database struct {
	// URL is a postgres:// URL or a DSN of key=value pairs. Empty means a Postgres
	// of the panel's own in DataDir.
	URL string
	// DataDir is a directory for nothing else. Required where URL is empty.
	DataDir string
	// PostgresBinDir holds initdb and postgres; empty means to search for them.
	PostgresBinDir string
}

// Check says what is wrong with it, as far as that shows without connecting.
func (d Database) Check() error {
	switch {
	case d.URL != "":
		return db.CheckURL(d.URL)
	case d.DataDir == "":
		return errors.New("database: neither a URL nor a data directory is given")
	default:
		return nil
	}
}

// Account is a person who logs in by email and password.
type Account struct {
	Email, Password string
}

// TunnelServer says how the embedded tunnel server runs.
type TunnelServer struct {
	// Disabled leaves it out.
	Disabled bool
	// Name tells the tunnel servers of several panels on one database apart;
	// empty is the name of the host. A tunnel server with the same name keeps its
	// allocations.
	Name string
	// Listen is the host and port where agents' links and data connections
	// arrive; empty is DefaultRelayListen.
	Listen string
	// BindHost is the address that public ports are bound on; empty is all of
	// this machine's, IPv4 and IPv6.
	BindHost string
	// PlainStreams lets agents that are told the same do without the encryption
	// of players' TCP bytes.
	PlainStreams bool
}

// PortRange is a range of ports, both ends included.
type PortRange struct {
	First, Last int
}

func (p PortRange) contains(port int) bool { return p.First <= port && port <= p.Last }

// withDefaults fills in what was left out and says what is wrong with the rest.
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
	if o.TunnelServer.Name == "" && !o.TunnelServer.Disabled {
		name, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("name of the tunnel server: %w", err)
		}
		o.TunnelServer.Name = name
	}
	if o.Ports == (PortRange{}) {
		o.Ports = PortRange{DefaultPortFirst, DefaultPortLast}
	}
	if o.KeyRotation == 0 {
		o.KeyRotation = DefaultKeyRotation
	}
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = 10 * time.Second
	}
	return o, errors.Join(
		o.Database.Check(),
		o.checkAddresses(),
		o.checkPublic(),
		o.checkTLS(),
		o.checkFirstAdmin(),
		o.checkTimes(),
	)
}

func (o Options) checkTimes() error {
	if o.KeyRotation >= 0 && o.KeyRotation < minKeyRotation {
		return fmt.Errorf("key rotation: %v is less than %v", o.KeyRotation, minKeyRotation)
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
	for name, address := range listeners {
		_, text, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("%s: %q is not a host and port", name, address)
		}
		port, err := strconv.Atoi(text)
		if err != nil || port < 0 || port > 65535 {
			return fmt.Errorf("%s: %q is not a port", name, text)
		}
		// It would be given to an allocation here, which then could not be bound.
		if !o.TunnelServer.Disabled && o.Ports.contains(port) {
			return fmt.Errorf("%s: port %d lies in the port range %d-%d of allocations", name, port, first, last)
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
			return fmt.Errorf("public URL: %q is not a scheme and host alone", u.Redacted())
		}
	}
	if _, _, err := net.SplitHostPort(o.PublicHost); err == nil {
		return fmt.Errorf("public host: %q has a port", o.PublicHost)
	}
	if _, err := netip.ParseAddr(o.PublicHost); err != nil && strings.ContainsAny(o.PublicHost, ":[]/ ") {
		return fmt.Errorf("public host: %q is not a host name or an IP address alone", o.PublicHost)
	}
	return nil
}

func (o Options) checkFirstAdmin() error {
	if o.FirstAdmin == (Account{}) {
		return nil
	}
	return o.FirstAdmin.Check()
}

func (o Options) checkTLS() error {
	if (o.TLSCertFile == "") != (o.TLSKeyFile == "") {
		return errors.New("TLS: certificate and key file are given together or not at all")
	}
	return nil
}
