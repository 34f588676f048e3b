// Package relay is the tunnel server: it owns public ports, accepts players on
// them, and passes their traffic to tunnel clients over data connections.
//
// What it serves comes over its control channel, and it keeps no other state. While
// the control channel is down everything goes on: players stay, new players join,
// and tunnel clients come back with their tickets. The same holds for the next
// process where its owner keeps this one's state for it: see Options.Keep.
//
// The package assembles two parts that do not know each other: package publicport,
// the players' side, and package session, the tunnel clients' side.
//
//	relay.go    options, the order of start and stop
//	control.go  the control channel: desired state in, status out
//	players.go  passes players from public ports to tunnel clients
//	usage.go    what allocations have carried, on its way to the panel;
//	            usagebacklog.go keeps it while the panel is away
//	stats.go    counts; metrics.go shows them to Prometheus
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/session"
)

// tick is how often idle flows, idle data connections and ports to try again are
// looked for.
const tick = time.Second

// connectionsInterval is the least time between two reports of players.
const connectionsInterval = 250 * time.Millisecond

// Options say who a tunnel server is and where it listens.
type Options struct {
	// ID is its device id: tickets must name it. Required.
	ID uuid.UUID
	// Panel is the identity of the panel that issued its token. A snapshot of another
	// panel is not applied and ends the channel; uuid.Nil: not checked.
	Panel uuid.UUID
	// Dial opens its control channel. An error wrapping channel.ErrFeatureOff
	// closes all ports until a later try succeeds, a *channel.FinalError ends
	// Run, any other is retried and changes nothing. Required.
	Dial func(ctx context.Context) (*websocket.Conn, error)
	// Listener accepts links and data connections; TLS is added to it. Run closes
	// it. Required. Run also takes sealed packets on the UDP port of the same
	// address and number; where that cannot be opened, it is logged and datagrams
	// take data connections.
	Listener net.Listener
	// AdvertisedPort is the port at which tunnel clients reach the Listener, and
	// for UDP too; 0: its own.
	AdvertisedPort int
	// Certificate is served on the Listener until Renew; nil: one that New makes.
	Certificate *tls.Certificate
	// Keep is called with the desired state each time the panel has changed it, and
	// with nil once there is none any more: tunnels are switched off, or the device's
	// token is dead. It is called by one goroutine, which waits for it, and must not
	// change what it is given. nil: nothing is kept.
	Keep func(*types.ServerSnapshot)
	// KeepNow is called in place of Keep where the state shuts out somebody whom the one
	// before did not, and before that takes effect: it returns once the state would
	// survive a crash, or after a short time if it cannot. nil: Keep.
	KeepNow func(*types.ServerSnapshot)
	// Last is what Keep or KeepNow was last called with by a process before this one. It is
	// served until the panel sends its state; nil: nothing.
	Last *types.ServerSnapshot
	// UsageBacklog holds what allocations have carried and no panel has stored, beyond the
	// end of Run. nil: that is lost.
	UsageBacklog *UsageBacklog
	// UsageInterval is the time between two reports of what allocations have carried; 0:
	// 10 s.
	UsageInterval time.Duration
	// PlainStreams lets tunnel clients that are configured alike leave players' TCP
	// bytes unencrypted. Links and datagrams stay encrypted.
	PlainStreams bool
	// BindHost is the address to which public ports are bound; "": all, IPv4
	// and IPv6.
	BindHost string
	// Version and Platform describe this program to the panel.
	Version, Platform string
	// OnChannel is called with nil when the panel has sent the desired state on a new
	// control channel, and with the error and the wait until the next attempt when a
	// channel ends or cannot be opened. It must not block. nil: not called.
	OnChannel func(err error, retry time.Duration)
	// OnHost is called with the public host after the panel has named it, and again when
	// it has changed. It must not block. nil: not called.
	OnHost func(types.ServerHost)
	// Standby says what follows when another process of the device took over: all
	// ports and links are closed, and its Begin, which may be nil here, is called. The
	// zero value: Run ends with a *channel.FinalError.
	Standby controlclient.Standby
	// Limits bound what peers can make it hold.
	Limits Limits
	// Channel tunes the control channel and links, Backoff the control
	// channel's reconnects; the zero values are for use.
	Channel channel.Options
	Backoff backoff.Exponential
	// Logger; nil discards.
	Logger *slog.Logger
	// Metrics has the tunnel server's metrics registered while it runs. It may hold
	// those of one tunnel server at a time. nil: none.
	Metrics prometheus.Registerer
	// Now is the clock that tickets are held against, and the ends of what allocations keep
	// out; nil: time.Now.
	Now func() time.Time
}

// PortLimits and ClientLimits bound what players and tunnel clients can make a
// tunnel server hold.
type (
	PortLimits   = publicport.Limits
	ClientLimits = session.Limits
)

// Limits bound what peers can make a tunnel server hold. The zero value of each
// means its default.
type Limits struct {
	PortLimits
	ClientLimits
}

// Server is one tunnel server.
type Server struct {
	opts    Options
	log     *slog.Logger
	clients *session.Clients
	ports   *publicport.Ports
	control *control
	usage   *usage
}

// New makes a tunnel server.
func New(o Options) (*Server, error) {
	if o.Dial == nil || o.Listener == nil || o.ID == uuid.Nil {
		return nil, errors.New("relay: ID, Dial and Listener are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keep == nil {
		o.Keep = func(*types.ServerSnapshot) {}
	}
	if o.KeepNow == nil {
		o.KeepNow = o.Keep
	}
	if o.UsageBacklog == nil {
		o.UsageBacklog = NewUsageBacklog("", nil)
	}
	if o.OnChannel == nil {
		o.OnChannel = func(error, time.Duration) {}
	}
	if o.OnHost == nil {
		o.OnHost = func(types.ServerHost) {}
	}
	if o.AdvertisedPort == 0 {
		if a, ok := o.Listener.Addr().(*net.TCPAddr); ok {
			o.AdvertisedPort = a.Port
		}
	}
	if o.Certificate == nil {
		made, err := session.SelfSigned()
		if err != nil {
			return nil, err
		}
		o.Certificate = &made
	}
	s := &Server{opts: o, log: o.Logger.With(slog.String("serverId", o.ID.String()))}
	var err error
	s.clients, err = session.New(session.Options{
		ID:             o.ID,
		Listener:       o.Listener,
		AdvertisedPort: o.AdvertisedPort,
		Certificate:    *o.Certificate,
		PlainStreams:   o.PlainStreams,
		Limits:         o.Limits.ClientLimits,
		Channel:        o.Channel,
		Now:            o.Now,
		Logger:         s.log,
	})
	if err != nil {
		return nil, err
	}
	s.ports = publicport.New(publicport.Options{
		BindHost: o.BindHost,
		Clients:  players{s.clients},
		Limits:   o.Limits.PortLimits,
		Changed:  func() { s.control.Report() },
		Now:      o.Now,
		Logger:   s.log,
	})
	s.usage = newUsage(s.ports, o.UsageInterval, o.UsageBacklog, time.Now())
	if s.control, err = newControl(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Fingerprint is the fingerprint of the key that tunnel clients are shown, as in
// types.RelayEndpoint.
func (s *Server) Fingerprint() string { return s.clients.Identity.Fingerprint() }

// Renew sets another certificate for the Listener. One for the same key is served
// from the next handshake on. Another key is announced to the panel first, over a
// new control channel, and served once the panel has answered there: tunnel clients
// accept no key but the one that the panel names. An error leaves everything as it
// was.
func (s *Server) Renew(c tls.Certificate) error {
	served, err := s.clients.Identity.Renew(c)
	if err != nil {
		return err
	}
	if !served {
		s.control.Reconnect("the tunnel server has another key") // The hello names the key.
	}
	return nil
}

// Run serves until ctx ends, when it returns nil, or until the control channel
// is closed for good, when it returns the *channel.FinalError. All it started
// has ended when it returns. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	if registry := s.opts.Metrics; registry != nil {
		if err := registry.Register(metrics{s}); err != nil {
			return errors.Join(fmt.Errorf("register metrics: %w", err), s.opts.Listener.Close())
		}
		defer registry.Unregister(metrics{s})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Before the first flow can open: it may take sealed packets.
	s.clients.OpenPacketPort(ctx)
	// Before the listener: a tunnel client that comes at once is not refused.
	s.control.resume(s.opts.Last)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.clients.Serve(); err != nil {
			// No tunnel client could come back: better to end and be started again.
			cancel(err)
		}
	}()
	var ticking sync.WaitGroup
	ticking.Go(func() { s.tick(ctx) })
	// The control channel ends after the ports: their last counts are sent on it.
	channelCtx, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	ticking.Go(func() {
		<-ctx.Done()
		// Ports before links: a player accepted now would be carried over a link that is
		// closing.
		s.ports.Close()
		s.reportLast()
		leave()
	})
	ticking.Go(func() { s.reportConnections(ctx) })
	ticking.Go(func() { s.reportUsage(ctx) })

	err := s.control.run(channelCtx)

	cancel(nil)
	ticking.Wait()
	s.clients.Close()
	<-served
	s.clients.Wait()
	s.ports.Wait()
	s.usage.leave(time.Now())
	if err == nil {
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
			err = cause
		}
	}
	return err
}

// tick does what is due with time.
func (s *Server) tick(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.ports.Tick(now)
			s.control.ReportPlayers(now)
			s.control.ReportRefusals(now)
			s.clients.Tick(now)
		}
	}
}

// reportConnections reports players as they come and go.
func (s *Server) reportConnections(ctx context.Context) {
	ticker := time.NewTicker(connectionsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.control.ReportConnections()
		}
	}
}

// reportUsage reports and keeps usage. It may wait for a disk, as nothing else may.
func (s *Server) reportUsage(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.usage.tick(now, s.control.TakesUsage())
			s.control.ReportUsage(now)
		}
	}
}

// apply makes a desired state real.
func (s *Server) apply(state desiredState) {
	if err := s.clients.SetKeys(state.keys); err != nil {
		// The old keys stay; refusing the rest would close ports for nothing.
		s.log.Error("keys of the panel refused", slog.Any("error", err))
	}
	s.clients.Allow(maps.Clone(state.clients))
	s.ports.Apply(state.allocations)
}

// suspend closes all ports and links. The next snapshot brings them back.
func (s *Server) suspend(reason string) {
	if !s.clients.Suspend() {
		return
	}
	s.log.Info("closing all ports", slog.String("reason", reason))
	s.ports.Apply(map[int64]types.ServerAllocation{})
	s.clients.EndLinks(reason)
}
