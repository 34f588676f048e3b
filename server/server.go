// Package server is the panel: the API, the control channels, the page on which
// devices are approved, an embedded tunnel server, and, where the operator names
// no database, a Postgres of its own. It builds these parts and orders their
// start and their end; the rules live in the packages below it.
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
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Server is one panel. Any number of them share a database.
type Server struct {
	opts    Options
	logger  *slog.Logger
	latency latency

	// Set while starting, in this order.
	listener net.Listener
	http     *http.Server
	routes   atomic.Pointer[http.Handler] // Those in force.
	tls      *tls.Config                  // nil serves HTTP.
	url      *url.URL                     // Where people and agents reach the panel.
	host     string                       // Where players reach tunnel servers.
	db       *db.DB
	auth     *auth.Auth
	hub      *control.Hub

	running []part // What has been started, to be stopped in reverse.
	failed  chan error
	ready   chan struct{} // Closed once everything is up.
	serving atomic.Bool   // From ready until the end begins.
	leaving atomic.Bool   // From then on.
}

// part is something that was started and must be stopped.
type part struct {
	name string
	stop func(ctx context.Context) error
}

// New checks the options. Nothing runs until Run.
func New(opts Options) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{
		opts:    opts,
		logger:  opts.Logger,
		latency: newLatency(),
		failed:  make(chan error, 1),
		ready:   make(chan struct{}),
	}, nil
}

// Ready is closed once the panel serves everything it was asked to. Where Run
// returns first it stays open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// URL is where the panel is reached. It is known once Ready is closed.
func (s *Server) URL() *url.URL { return s.url }

// Run runs the panel until ctx ends, which is no error, or a part of it cannot go
// on. It stops everything before it returns, and may be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	// The parts live on when ctx ends: its end begins an orderly stop and must not
	// cut off the database under those who still need it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer func() { err = errors.Join(err, s.stop(life)) }()
	if err := s.start(ctx, life); err != nil {
		if ctx.Err() != nil {
			return nil // It was told to stop while starting.
		}
		return err
	}
	s.serving.Store(true)
	close(s.ready)
	s.logger.InfoContext(ctx, "panel is ready", slog.String("url", s.url.String()), slog.String("version", s.opts.Version))

	select {
	case <-ctx.Done():
		s.logger.InfoContext(ctx, "panel is stopping")
		s.leave()
		return nil
	case err := <-s.failed:
		return err
	}
}

// start starts the parts. ctx bounds the starting, life is theirs. The order is
// also that of the end, backwards.
func (s *Server) start(ctx, life context.Context) error {
	// The listener first: a port in use is the commonest mistake, and is found
	// before a database is made. Who connects from now on hears that it starts.
	if err := s.listen(ctx); err != nil {
		return err
	}
	s.accept(life)
	if err := s.startDatabase(ctx, life); err != nil {
		return err
	}
	if err := firstAdmin(ctx, s.db, s.opts.FirstAdmin, s.logger); err != nil {
		return err
	}
	routes, err := s.build(ctx)
	if err != nil {
		return err
	}
	if err := s.startMetrics(); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	// Before the routes: a device may not get a channel on which events do not arrive.
	if err := s.hub.Start(life); err != nil {
		return err
	}
	s.started("control channels", s.hub.Shutdown)
	s.serve(routes)
	s.background(life, "janitor", s.sweep)
	// Last, since it is a client of all the others. It ends first, so that its
	// links tell agents to come back while the panel still takes them.
	return s.startTunnelServer(ctx, life)
}

// leave serves on for the grace while /readyz says that the panel stops, so that
// load balancers send nobody here any more before anything is gone.
func (s *Server) leave() {
	s.leaving.Store(true)
	s.serving.Store(false)
	if s.opts.ShutdownGrace == 0 {
		return
	}
	timer := time.NewTimer(s.opts.ShutdownGrace)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-s.failed:
		// There is nothing left to serve with.
		s.logger.Error("panel failed while it was stopping", slog.Any("error", err))
	}
}

// stop stops what was started, last first, in the time the options give.
func (s *Server) stop(life context.Context) error {
	s.leaving.Store(true)
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

// started notes a part for stop.
func (s *Server) started(name string, stop func(ctx context.Context) error) {
	s.running = append(s.running, part{name, stop})
}

// background runs f as a part, with a context that ends when it shall stop. An
// error before that ends the panel.
func (s *Server) background(life context.Context, name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(life)
	ended := make(chan error, 1)
	go func() {
		err := f(ctx)
		if err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("%s: %w", name, err))
			err = nil
		}
		ended <- err
	}()
	s.started(name, func(context.Context) error {
		cancel()
		return <-ended
	})
}

// fail ends the panel; the first reason stands.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// errNotServing has no cause: whoever waits for the start asks often, and nothing
// is wrong that the log should name.
var errNotServing = problem.Unavailable("The panel is starting or stopping.", nil)

// check says why the panel cannot serve requests, for /readyz.
func (s *Server) check(ctx context.Context) error {
	if !s.serving.Load() {
		return errNotServing
	}
	if err := s.db.Ping(ctx); err != nil {
		return problem.Unavailable("The database does not answer.", err)
	}
	return nil
}
