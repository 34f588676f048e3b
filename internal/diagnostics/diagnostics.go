// Package diagnostics shows a program to those who operate it: metrics for Prometheus
// and profiles for `go tool pprof`, each on a listener of its own.
//
// Whoever scrapes metrics need not be trusted with profiles: /debug/pprof/heap exposes
// the program's memory, secrets included.
package diagnostics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	readHeaderTimeout = 10 * time.Second
	// maxScrapes bounds what scrapers that hang or hurry can cost.
	maxScrapes = 4
)

// Options say what to show, and where.
type Options struct {
	// MetricsListen and ProfilesListen are the hosts and ports of /metrics and of
	// /debug/pprof/; port 0 lets the system choose. Empty listens nowhere. One address
	// for both serves both.
	MetricsListen, ProfilesListen string
	// Program, Version and Commit are the labels of eclitunnel_build_info.
	Program, Version, Commit string
	// Logger logs where it listens; nil discards.
	Logger *slog.Logger
}

// Endpoint is the open listeners. A nil *Endpoint, which Start returns where there is
// nowhere to listen, has no metrics and need not be closed.
type Endpoint struct {
	registry *prometheus.Registry // nil without metrics.
	servers  []*listening
}

// listening is a server with its listener.
type listening struct {
	http.Server
	listener net.Listener
	served   chan error
}

// Start opens the listeners and serves on them until Close. The registry has the metrics
// of the process, of the Go runtime and eclitunnel_build_info; Metrics is how it gets
// others.
func Start(ctx context.Context, o Options) (*Endpoint, error) {
	if o.MetricsListen == "" && o.ProfilesListen == "" {
		return nil, nil
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Endpoint{}
	metrics := http.NewServeMux()
	if o.MetricsListen != "" {
		registry, err := newRegistry(o)
		if err != nil {
			return nil, err
		}
		e.registry = registry
		handleMetrics(metrics, registry)
		if o.ProfilesListen == o.MetricsListen {
			handleProfiles(metrics)
		}
		if err := e.serve(ctx, o, "metrics", o.MetricsListen, metrics); err != nil {
			return nil, err
		}
	}
	if o.ProfilesListen != "" && o.ProfilesListen != o.MetricsListen {
		profiles := http.NewServeMux()
		handleProfiles(profiles)
		if err := e.serve(ctx, o, "profiles", o.ProfilesListen, profiles); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}

// serve opens a listener and serves on it what the name says.
func (e *Endpoint) serve(ctx context.Context, o Options, what, address string, routes http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", what, err)
	}
	l := &listening{listener: listener, served: make(chan error, 1)}
	l.Handler = routes
	l.ReadHeaderTimeout = readHeaderTimeout
	l.ErrorLog = slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug)
	e.servers = append(e.servers, l)
	go func() { l.served <- l.Serve(listener) }()
	o.Logger.InfoContext(ctx, what+" are served", slog.String("address", listener.Addr().String()))
	return nil
}

func newRegistry(o Options) (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "eclitunnel_build_info",
		Help: "Always 1; the labels say which program this is.",
		ConstLabels: prometheus.Labels{
			"program": o.Program, "version": o.Version, "commit": o.Commit, "goversion": runtime.Version(),
		},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return registry, nil
}

func handleMetrics(mux *http.ServeMux, registry *prometheus.Registry) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// One metric that cannot be collected must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	}))
}

// handleProfiles serves profiles on a mux of their own: what importing net/http/pprof puts
// on http.DefaultServeMux is not served.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// Metrics is where the program's parts register their metrics; nil, which they
// take for none, where there are none.
func (e *Endpoint) Metrics() prometheus.Registerer {
	if e == nil || e.registry == nil {
		return nil // Not a nil *Registry, which would be no nil Registerer.
	}
	return e.registry
}

// Addrs returns where it listens, metrics first.
func (e *Endpoint) Addrs() []net.Addr {
	if e == nil {
		return nil
	}
	addresses := make([]net.Addr, len(e.servers))
	for i, l := range e.servers {
		addresses[i] = l.listener.Addr()
	}
	return addresses
}

// Close ends the listeners and every request, a profile being taken too.
func (e *Endpoint) Close() error {
	if e == nil {
		return nil
	}
	var errs []error
	for _, l := range e.servers {
		errs = append(errs, l.Close())
		if served := <-l.served; !errors.Is(served, http.ErrServerClosed) {
			errs = append(errs, served)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end serving metrics and profiles: %w", err)
	}
	return nil
}
