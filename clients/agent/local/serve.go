package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

const (
	// maxConnections is how many programs may be connected, and maxWatchers how many of
	// them may watch. Further ones wait, or are refused.
	maxConnections, maxWatchers = 64, 16
	maxHeader                   = 16 << 10
	headerTimeout               = 5 * time.Second
	idleTimeout                 = time.Minute
	// writeTimeout bounds one line of a watch: its reader is stopped, perhaps.
	writeTimeout = 10 * time.Second
)

// Source is the agent that is shown.
type Source interface {
	Snapshot() agent.Snapshot
	Watch(ctx context.Context, show func(agent.Snapshot) error) error
}

// Options configure Serve.
type Options struct {
	Info Info
	// Source is what snapshots come from; nil: there are none, as of a tunnel server.
	Source Source
	// Panel sends requests to the panel with the device's token. Required.
	Panel *tunnel.Client
	// Logger; nil discards.
	Logger *slog.Logger
}

// Serve serves the programs that connect to l, until ctx ends, when it returns nil. It
// closes l and every connection.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &handler{Options: o, watchers: make(chan struct{}, maxWatchers)}
	var connections sync.WaitGroup
	server := &http.Server{
		Handler:           h.routes(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s { // New comes before Serve can return, and Closed after the last handler.
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Done()
			}
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(&limited{Listener: l, slots: make(chan struct{}, maxConnections), closed: ctx.Done()})
	ended := ctx.Err() != nil
	cancel()
	_ = server.Close()
	connections.Wait()
	if errors.Is(err, http.ErrServerClosed) || ended {
		return nil
	}
	return fmt.Errorf("serve the local socket: %w", err)
}

type handler struct {
	Options
	watchers chan struct{} // Holds one token for each.
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+agentPath, func(w http.ResponseWriter, _ *http.Request) { answer(w, h.Info) })
	mux.HandleFunc("GET "+snapshotPath, h.snapshot)
	mux.HandleFunc("GET "+watchPath, h.watch)
	mux.HandleFunc(panelPrefix+"/", h.panel)
	return mux
}

func (h *handler) snapshot(w http.ResponseWriter, _ *http.Request) {
	if h.Source == nil {
		http.Error(w, "A tunnel server has no snapshots.", http.StatusNotFound)
		return
	}
	answer(w, h.Source.Snapshot())
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // Its reader has gone, perhaps.
}

func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	if h.Source == nil {
		http.Error(w, "A tunnel server has no snapshots.", http.StatusNotFound)
		return
	}
	select {
	case h.watchers <- struct{}{}:
		defer func() { <-h.watchers }()
	default:
		http.Error(w, "Too many programs watch this agent.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	out := json.NewEncoder(w)
	_ = h.Source.Watch(r.Context(), func(s agent.Snapshot) error { // It ends with its reader.
		return cmp.Or(control.SetWriteDeadline(time.Now().Add(writeTimeout)), out.Encode(s), control.Flush())
	})
}

// limited is a listener with so many connections at most; others wait.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed <-chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slot{Conn: c, leave: sync.OnceFunc(func() { <-l.slots })}, nil
}

type slot struct {
	net.Conn
	leave func()
}

func (s *slot) Close() error {
	defer s.leave()
	return s.Conn.Close()
}
