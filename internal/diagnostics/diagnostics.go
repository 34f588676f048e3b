// Package diagnostics shows a program to those who operate it: metrics for
// Prometheus and profiles for `go tool pprof`, on a listener of their own.
//
// The listener must be reachable from the operator's network only: /debug/pprof/heap
// exposes the program's memory, secrets included.
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
	// Listen is the host and port to listen on; port 0 lets the system choose.
	// Empty listens nowhere.
	Listen string
	// Program, Version and Commit are the labels of eclitunnel_build_info.
	Program, Version, Commit string
	// Logger logs where it listens; nil discards.
	Logger *slog.Logger
}

// Endpoint is an open listener. A nil *Endpoint, which Start returns where there
// is nowhere to listen, has no metrics and need not be closed.
type Endpoint struct {
	registry *prometheus.Registry
	listener net.Listener
	server   *http.Server
	served   chan error
}

// Start opens the listener and serves /metrics and /debug/pprof/ on it until
// Close. The registry has the metrics of the process, of the Go runtime and
// eclitunnel_build_info; Metrics is how it gets others.
func Start(ctx context.Context, o Options) (*Endpoint, error) {
	if o.Listen == "" {
		return nil, nil
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	registry, err := newRegistry(o)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	e := &Endpoint{registry: registry, listener: listener, served: make(chan error, 1)}
	e.server = &http.Server{
		Handler:           routes(registry),
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	go func() { e.served <- e.server.Serve(listener) }()
	o.Logger.InfoContext(ctx, "metrics are served", slog.String("address", listener.Addr().String()))
	return e, nil
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

// routes are on a mux of their own: what importing net/http/pprof puts on
// http.DefaultServeMux is not served.
func routes(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// One metric that cannot be collected must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// Metrics is where the program's parts register their metrics; nil, which they
// take for none, where there is no endpoint.
func (e *Endpoint) Metrics() prometheus.Registerer {
	if e == nil {
		return nil // Not a nil *Registry, which would be no nil Registerer.
	}
	return e.registry
}

// Addr is where the endpoint listens. It must not be called on nil.
func (e *Endpoint) Addr() net.Addr { return e.listener.Addr() }

// Close ends the listener and every request, a profile being taken too.
func (e *Endpoint) Close() error {
	if e == nil {
		return nil
	}
	err := e.server.Close()
	if served := <-e.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("end serving metrics: %w", err)
	}
	return nil
}
