// Package server is the panel: the API, the control channels, the page on which
// devices are approved, an embedded tunnel server, and an embedded Postgres unless the
// operator provides a database. It builds these parts, and starts and stops them in
// order; the rules are in the packages below it.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/certificate"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/eclipanel"
	"github.com/eclitunnel/eclitunnel/server/internal/live/events"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
	"github.com/eclitunnel/eclitunnel/server/internal/mail"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
	"github.com/eclitunnel/eclitunnel/server/internal/tracing"
)

// Server is a replica of the panel. Any number of replicas share a database.
type Server struct {
	opts    Options
	logger  *slog.Logger
	latency latency
	// connections are those of the HTTP listener.
	connections *connections

	// Set while starting, in this order.
	traces   *tracing.Tracer // nil makes none.
	listener net.Listener
	http     *http.Server
	routes   atomic.Pointer[http.Handler] // The current routes.
	tls      *tls.Config                  // nil serves HTTP.
	own      *ownCertificate              // With TLS only.
	url      *url.URL                     // The panel's URL for people and agents.
	host     string                       // The default public host of tunnel servers.
	db       *db.DB
	auth     *auth.Auth
	provider *eclipanel.Provider // nil without EcliPanel.
	hub      *control.Hub
	events   *events.Hub
	hosts    *publichost.Keeper
	mail     *mail.Sender // nil sends none.
	webhooks *webhooks.Service

	certificateFiles  *certificate.Files           // With Options.TLSCertFile only.
	certificateSource atomic.Pointer[certificates] // See certificates.
	acmeListener      net.Listener                 // For http-01; nil without it.

	usageSubject int64 // The last one that pruneUsage has looked at; 0 is none.

	running []part // Started parts, to be stopped in reverse order.
	failed  chan error
	ready   chan struct{} // Closed once all parts have started.
	serving atomic.Bool   // Set from ready until the shutdown begins.
	closing atomic.Bool   // Set from then on.
}

// part is a started part, which must be stopped.
type part struct {
	name string
	stop func(ctx context.Context) error
}

// New returns a Server that Run runs. It only checks the options.
func New(opts Options) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{
		opts:    opts,
		logger:  opts.Logger,
		latency: newLatency(),

		connections: newConnections(opts.TrustedProxies),

		failed: make(chan error, 1),
		ready:  make(chan struct{}),
	}, nil
}

// Ready returns a channel that is closed once all parts of the panel have started. If
// Run returns before that, the channel stays open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// URL returns the panel's URL for people and agents. It must not be called before
// Ready is closed.
func (s *Server) URL() *url.URL { return s.url }

// Run runs the panel until ctx ends, and then returns nil, or until a part fails, and
// then returns the error. It stops all parts before it returns. It may be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	ctx = db.WithActor(ctx, db.Actor{}) // What it does is not done by the command that runs it.
	// The parts outlive ctx, whose end begins an orderly shutdown: the database must
	// not stop while other parts still use it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer func() { err = errors.Join(err, s.stop(life)) }()
	if err := s.start(ctx, life); err != nil {
		if ctx.Err() != nil {
			return nil // Canceled while starting.
		}
		return err
	}
	s.serving.Store(true)
	close(s.ready)
	s.logger.InfoContext(ctx, "panel is ready", slog.String("url", s.url.String()), slog.String("database", s.opts.Database.String()), slog.String("version", s.opts.Version))

	select {
	case <-ctx.Done():
		s.logger.InfoContext(ctx, "panel is stopping")
		s.serveGrace()
		return nil
	case err := <-s.failed:
		return err
	}
}

// start starts the parts. ctx bounds the start and life the parts' lifetime. They are
// stopped in reverse order.
func (s *Server) start(ctx, life context.Context) error {
	// It stops last, so that it sends what the other parts do until then.
	if err := s.startTraces(ctx); err != nil {
		return err
	}
	// The listener comes before all others: a port in use is the most common mistake, and is
	// detected before a database is created. From now on the panel responds that it is
	// starting.
	if err := s.listen(ctx); err != nil {
		return err
	}
	if s.certificateFiles != nil {
		s.keepCertificates(life, s.certificateFiles)
	}
	s.accept(life)
	s.acceptACME(life)
	if err := s.startDatabase(ctx, life); err != nil {
		return err
	}
	ctx = asPanel(ctx)
	if !s.opts.NoLocalAccounts {
		if err := firstAdmin(ctx, s.db, s.opts.FirstAdmin, s.logger); err != nil {
			return err
		}
	}
	s.forgetRoles(ctx)
	routes, err := s.build(ctx)
	if err != nil {
		return err
	}
	if err := s.startMetrics(); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	// After the signing keys have been read: with wrong secret keys the panel does not start.
	if err := s.startACME(ctx, life); err != nil {
		return err
	}
	// Before the routes: a channel must not open before the hub receives events.
	if err := s.hub.Start(life); err != nil {
		return err
	}
	s.addPart("control channels", s.hub.Shutdown)
	s.serve(routes)
	// It stops before the HTTP server, which would wait for streams.
	s.background(life, "event streams", s.events.Run)
	s.background(life, "janitor", s.sweep)
	s.background(life, "log of events", s.keepEvents)
	s.background(life, "clock", s.watchClock)
	s.background(life, "uses of sessions and API keys", s.auth.RecordUses)
	s.background(life, "mail check", s.checkMail)
	s.background(life, "public hosts", s.hosts.Run)
	if err := s.encryptWebhooks(ctx); err != nil {
		return err
	}
	s.background(life, "webhooks", s.webhooks.Run)
	if s.opts.EcliPanel.Features && s.provider != nil {
		s.background(life, "EcliPanel's features", s.provider.FollowFeatures)
	}
	// Last, because it is a client of all the others. It stops first, so that its links
	// tell agents to reconnect while the panel still accepts them.
	if err := s.startTunnelServer(ctx, life); err != nil {
		return err
	}
	s.warnSharedHost(ctx)
	s.warnNoAdmin(ctx)
	s.awaitCertificates(ctx)
	return nil
}

// startTraces starts sending traces, if Options.Traces is set.
func (s *Server) startTraces(ctx context.Context) error {
	if !s.opts.Traces {
		return nil
	}
	traces, err := tracing.New(ctx, tracing.Options{Version: s.opts.Version, Logger: s.logger})
	if err != nil {
		return err
	}
	s.traces = traces
	s.addPart("traces", traces.Shutdown)
	return nil
}

// serveGrace continues to serve for the shutdown grace period while /readyz reports
// that the panel is stopping, so that load balancers stop sending requests here before
// any part stops.
func (s *Server) serveGrace() {
	s.closing.Store(true)
	s.serving.Store(false)
	if s.opts.ShutdownGrace == 0 {
		return
	}
	timer := time.NewTimer(s.opts.ShutdownGrace)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-s.failed:
		// A part has failed, so the panel cannot serve any longer.
		s.logger.Error("panel failed while it was stopping", slog.Any("error", err))
	}
}

// stop stops the started parts in reverse order, within Options.ShutdownTimeout.
func (s *Server) stop(life context.Context) error {
	s.closing.Store(true)
	s.serving.Store(false)
	ctx, cancel := context.WithTimeout(life, s.opts.ShutdownTimeout)
	defer cancel()
	var errs []error
	for i := len(s.running) - 1; i >= 0; i-- {
		part := s.running[i]
		started := time.Now()
		if err := part.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", part.name, err))
		}
		s.logger.DebugContext(ctx, "part stopped", slog.String("part", part.name), slog.Duration("duration", time.Since(started)))
	}
	return errors.Join(errs...)
}

// addPart adds a started part, which stop stops.
func (s *Server) addPart(name string, stop func(ctx context.Context) error) {
	s.running = append(s.running, part{name, stop})
}

// background runs f in a goroutine as a part. f must return when its context ends. An
// error before that ends the panel.
func (s *Server) background(life context.Context, name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(asPanel(life))
	ended := make(chan error, 1)
	go func() {
		err := f(ctx)
		if err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("%s: %w", name, err))
			err = nil
		}
		ended <- err
	}()
	s.addPart(name, func(context.Context) error {
		cancel()
		return <-ended
	})
}

// fail makes Run return err, unless fail was called before.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// errNotServing has no cause, so that frequent readiness probes do not fill the log.
var errNotServing = problem.Unavailable("The panel is starting or stopping.", nil)

// check returns why the panel cannot serve requests, or nil, for /readyz.
func (s *Server) check(ctx context.Context) error {
	if !s.serving.Load() {
		return errNotServing
	}
	if err := s.db.Ping(ctx); err != nil {
		return problem.Unavailable("The database does not respond.", err)
	}
	return nil
}
