package main

import (
	"context"
	"net/netip"

	"github.com/eclitunnel/eclitunnel/clients/agent"
)

// tunnelServerFlags are the flags of run that apply to tunnel servers only.
type tunnelServerFlags struct {
	RelayListen        string `default:":7443" placeholder:"HOST:PORT" help:"Tunnel server: address on which it accepts agents, over TCP and UDP (default: :7443)."`
	AdvertisedPort     int    `placeholder:"N" help:"Tunnel server: port that agents dial, for TCP and UDP, if it is mapped to --relay-listen (default: that of --relay-listen)."`
	BindHost           string `placeholder:"ADDRESS" help:"Tunnel server: address on which public ports are opened (default: all addresses, IPv4 and IPv6)."`
	CertificateFile    string `placeholder:"FILE" help:"Tunnel server: PEM certificate chain to present to agents, reloaded when it changes (default: a self-made key, kept in --state-dir)."`
	CertificateKeyFile string `placeholder:"FILE" help:"Tunnel server: PEM private key of --certificate-file."`
}

// serveTunnels runs a tunnel server.
func (f *tunnelServerFlags) serveTunnels(ctx context.Context, a *app, s *settings, o agent.TunnelServerOptions) error {
	if err := f.check(); err != nil {
		return err
	}
	o.Listen, o.AdvertisedPort, o.BindHost = f.RelayListen, f.AdvertisedPort, f.BindHost
	o.Certificate = agent.CertificateFiles{Certificate: f.CertificateFile, Key: f.CertificateKeyFile}
	if o.StateFile == "" {
		return usagef("there is no config directory; set a directory for the tunnel server's key and state with --state-dir")
	}
	server, err := agent.NewTunnelServer(ctx, o)
	if err != nil {
		return err
	}
	if !s.JSON {
		a.printf("accepting agents on %s, key fingerprint %s", server.Address(), server.Fingerprint())
	}
	return server.Run(ctx)
}

func (f *tunnelServerFlags) check() error {
	if (f.CertificateFile == "") != (f.CertificateKeyFile == "") {
		return usagef("--certificate-file and --certificate-key-file must be set together")
	}
	if f.AdvertisedPort < 0 || f.AdvertisedPort > 65535 {
		return usagef("--advertised-port: %d is not a port number", f.AdvertisedPort)
	}
	if f.BindHost != "" {
		if _, err := netip.ParseAddr(f.BindHost); err != nil {
			return usagef("--bind-host: %q is not an IP address", f.BindHost)
		}
	}
	return nil
}
