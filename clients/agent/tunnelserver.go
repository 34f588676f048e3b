package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// DefaultRelayListen is where a tunnel server takes links and data connections.
const DefaultRelayListen = ":7443"

// TunnelServerOptions say how a tunnel server on a machine of its own runs.
type TunnelServerOptions struct {
	// Client talks to the panel with the device's token, and Device is the
	// device's id. Required.
	Client *tunnel.Client
	Device uuid.UUID
	// Listen is the host and port where tunnel clients arrive; "" is
	// DefaultRelayListen. AdvertisedPort is the port that they dial, where
	// something on the way maps it; 0: that of Listen.
	Listen         string
	AdvertisedPort int
	// BindHost is the address that public ports are bound to; "" is all of this
	// machine's, IPv4 and IPv6.
	BindHost string
	// PlainStreams lets tunnel clients that are told the same do without the
	// encryption of players' TCP bytes.
	PlainStreams bool
	// Certificate is the operator's. Its zero value has one made, whose key is
	// kept in KeyFile (required then) and so stays the same over restarts.
	Certificate CertificateFiles
	KeyFile     string
	// StateFile keeps what the panel last wanted, so that a start that finds the
	// panel away serves it; "" keeps nothing.
	StateFile string
	// Logger; nil discards.
	Logger *slog.Logger
	// Version and Platform are as in [Options].
	Version, Platform string
	// OnEvent hears of one event at a time, in order: connected, disconnected,
	// switched_off, stopped. It must not block for long. May be nil.
	OnEvent func(Event)
	// Metrics is given the tunnel server's metrics for as long as it runs. nil:
	// none.
	Metrics prometheus.Registerer
	// Channel and Backoff tune the control channel; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
}

// TunnelServer is a tunnel server on a machine of its own.
type TunnelServer struct {
	opts     TunnelServerOptions
	log      *slog.Logger
	listener net.Listener
	relay    *relay.Server
	state    *store.State[types.ServerSnapshot]
	events   emitter
	files    certificatePEM // What the operator's files held when last served.
	every    time.Duration  // Between two looks at them.
}

// NewTunnelServer makes a tunnel server, with its listener open and its key made
// or read. Run, or Close where it is not to be run, closes the listener.
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
		events: emitter{on: o.OnEvent},
		every:  certificateInterval,
	}
	certificate, err := s.certificate()
	if err != nil {
		return nil, err
	}
	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	s.relay, err = relay.New(relay.Options{
		ID:             o.Device,
		Dial:           func(ctx context.Context) (*websocket.Conn, error) { return dialPanel(ctx, o.Client) },
		Listener:       s.listener,
		AdvertisedPort: o.AdvertisedPort,
		Certificate:    &certificate,
		BindHost:       o.BindHost,
		PlainStreams:   o.PlainStreams,
		Keep:           s.state.Save,
		Last:           s.state.Load(),
		OnChannel:      s.heard,
		Metrics:        o.Metrics,
		Version:        o.Version,
		Platform:       o.Platform,
		Channel:        o.Channel,
		Backoff:        o.Backoff,
		Logger:         o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
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

// Address is where tunnel clients are taken, and Fingerprint that of the key that
// they are shown.
func (s *TunnelServer) Address() string     { return s.listener.Addr().String() }
func (s *TunnelServer) Fingerprint() string { return s.relay.Fingerprint() }

// Close closes the listener of a tunnel server that is not run.
func (s *TunnelServer) Close() error { return s.listener.Close() }

// Run serves until ctx ends, when it returns nil, or until the tunnel server must
// not go on by itself, as [Agent.Run] does. Everything is closed when it returns.
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

// heard hears of the control channel.
func (s *TunnelServer) heard(err error, retry time.Duration) {
	if err == nil {
		s.log.Info("connected to the panel", slog.String("panel", s.opts.Client.PanelURL()))
		s.events.emit(Event{Type: EventConnected})
		return
	}
	s.events.disconnected(err, retry) // Logged by the relay.
}

// watchCertificate serves the operator's certificate as it is renewed.
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
		// The two files cannot be replaced in one step, so that a pair may not fit
		// for a moment.
		if err != nil && !failing {
			s.log.Warn("the renewed certificate is not served yet", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// renew serves what the operator's files hold now, where that is something else.
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
