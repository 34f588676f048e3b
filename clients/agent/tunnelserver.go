package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/internal/files"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// DefaultRelayListen is the address at which a tunnel server accepts links and data
// connections.
const DefaultRelayListen = ":7443"

// keepTimeout is for how long a change that shuts somebody out waits for the disk: it
// takes effect without it where that hangs.
const keepTimeout = 500 * time.Millisecond

// TunnelServerOptions configure a TunnelServer.
type TunnelServerOptions struct {
	// Client sends requests to the panel with the device's token, and Device is the
	// device's id. Required.
	Client *tunnel.Client
	Device uuid.UUID
	// Listen is the host and port for tunnel clients; "": DefaultRelayListen.
	// AdvertisedPort is the port that they dial where a router maps it; 0: that of
	// Listen.
	Listen         string
	AdvertisedPort int
	// BindHost is the address that public ports are bound to; "": all addresses of
	// this machine, IPv4 and IPv6.
	BindHost string
	// PlainStreams lets tunnel clients with the same setting do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// Certificate is the operator's. The zero value: a self-signed one, whose key is
	// kept in KeyFile (required then) and so survives restarts.
	Certificate CertificateFiles
	KeyFile     string
	// StateFile keeps the last desired state, for a start while the panel cannot be
	// reached, and a file beside it, whose name ends in ".usage.jsonl", the usage that no
	// panel has stored; "" keeps nothing.
	StateFile string
	// Logger; nil discards.
	Logger *slog.Logger
	// Version and Platform are as in [Options].
	Version, Platform string
	// OnEvent is called with one event at a time, in order: connected, public_host,
	// disconnected, switched_off, standby, stopped. It must not block for long. May be nil.
	OnEvent func(Event)
	// Metrics holds the tunnel server's metrics while it runs. nil: none.
	Metrics prometheus.Registerer
	// Channel, Backoff and Standby are as in [Options].
	Channel channel.Options
	Backoff backoff.Exponential
	Standby controlclient.StandbyTimes
}

// TunnelServer is a tunnel server on a machine of its own.
type TunnelServer struct {
	opts     TunnelServerOptions
	log      *slog.Logger
	listener net.Listener
	panel    panelDialer
	relay    *relay.Server
	state    *store.State[types.ServerSnapshot]
	events   emitter
	files    certificatePEM // The content of the operator's files that is served.
	every    time.Duration  // Between two reads of them.
}

// NewTunnelServer returns a tunnel server whose listener is open and whose key is read
// or made. Run closes the listener, or Close where Run is not called.
func NewTunnelServer(ctx context.Context, o TunnelServerOptions) (_ *TunnelServer, err error) {
	if o.Client == nil || o.Device == uuid.Nil {
		return nil, errors.New("tunnel server: Client and Device are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Listen == "" {
		o.Listen = DefaultRelayListen
	}
	o.Version, o.Platform = describe(o.Version, o.Platform)
	s := &TunnelServer{
		opts:   o,
		log:    o.Logger,
		state:  store.NewState[types.ServerSnapshot](o.StateFile, o.Logger),
		panel:  panelDialer{client: o.Client},
		events: emitter{on: o.OnEvent},
		every:  certificateInterval,
	}
	certificate, err := s.certificate()
	if err != nil {
		return nil, err
	}
	if exposed := files.Exposure(cmp.Or(o.Certificate.Key, o.KeyFile)); exposed != nil {
		s.log.Warn("the tunnel server's key is not private", slog.Any("error", exposed))
	}
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	s.relay, err = relay.New(relay.Options{
		ID:             o.Device,
		Panel:          o.Client.TokenPanel(),
		Dial:           s.panel.dial,
		Listener:       s.listener,
		AdvertisedPort: o.AdvertisedPort,
		Certificate:    &certificate,
		BindHost:       o.BindHost,
		PlainStreams:   o.PlainStreams,
		Keep:           s.state.Save,
		KeepNow:        func(state *types.ServerSnapshot) { s.state.SaveNow(state, keepTimeout) },
		Last:           s.state.Load(),
		UsageBacklog:   relay.NewUsageBacklog(usageFile(o.StateFile), o.Logger),
		OnChannel:      s.channelChanged,
		OnHost:         func(h types.ServerHost) { s.events.emit(Event{Type: EventPublicHost, Host: &h}) },
		Standby: controlclient.Standby{
			Presence: func(ctx context.Context) (controlclient.Presence, error) {
				return presence(ctx, o.Client)
			},
			Begin:        s.events.standby, // Logged by the relay.
			StandbyTimes: o.Standby,
		},
		Metrics:  o.Metrics,
		Version:  o.Version,
		Platform: o.Platform,
		Channel:  o.Channel,
		Backoff:  o.Backoff,
		Logger:   o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// usageFile is where usage that no panel has stored is kept; "": nowhere.
func usageFile(stateFile string) string {
	if stateFile == "" {
		return ""
	}
	return strings.TrimSuffix(stateFile, filepath.Ext(stateFile)) + ".usage.jsonl"
}

func (s *TunnelServer) certificate() (tls.Certificate, error) {
	if s.opts.Certificate != (CertificateFiles{}) {
		var err error
		if s.files, err = s.opts.Certificate.read(); err != nil {
			return tls.Certificate{}, err
		}
		return s.files.parse()
	}
	if s.opts.KeyFile == "" {
		return tls.Certificate{}, errors.New("tunnel server: no certificate, and no file to keep a key in")
	}
	return store.Certificate(s.opts.KeyFile, session.SelfSigned)
}

// Address is the address that tunnel clients are accepted at, and Fingerprint that of
// the key that the listener serves.
func (s *TunnelServer) Address() string     { return s.listener.Addr().String() }
func (s *TunnelServer) Fingerprint() string { return s.relay.Fingerprint() }

// Close closes the listener of a tunnel server that is not run.
func (s *TunnelServer) Close() error { return s.listener.Close() }

// Run serves until ctx ends, when it returns nil, or until the tunnel server must not
// reconnect by itself, as [Agent.Run] does. Everything is closed when it returns.
// It may be called once.
func (s *TunnelServer) Run(ctx context.Context) error {
	stop := s.state.Start()
	defer stop()
	watching, end := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer end()
	if s.opts.Certificate != (CertificateFiles{}) {
		watch.Go(func() { s.watchCertificate(watching) })
	}
	return s.events.stopped(ctx, s.relay.Run(ctx))
}

// channelChanged reports that a control channel is connected, or why there is none.
func (s *TunnelServer) channelChanged(err error, retry time.Duration) {
	s.panel.onChannel(err)
	if err == nil {
		s.log.Info("connected to the panel", slog.String("panel", s.opts.Client.PanelURL()))
		s.events.emit(Event{Type: EventConnected})
		return
	}
	s.events.disconnected(err, retry) // Logged by the relay.
}

// watchCertificate serves the operator's certificate when it is renewed.
func (s *TunnelServer) watchCertificate(ctx context.Context) {
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := s.renew()
		// The two files cannot be replaced in one step: for a moment they may not
		// match.
		if err != nil && !failing {
			s.log.Warn("the renewed certificate is not served yet", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// renew serves the current content of the operator's files, if it has changed.
func (s *TunnelServer) renew() error {
	now, err := s.opts.Certificate.read()
	if err != nil || now == s.files {
		return err
	}
	certificate, err := now.parse()
	if err != nil {
		return err
	}
	if err := s.relay.Renew(certificate); err != nil {
		return err
	}
	s.files = now
	s.log.Info("the certificate was renewed", slog.String("file", s.opts.Certificate.Certificate))
	return nil
}
