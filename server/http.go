package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

const (
	// readHeaderTimeout bounds how long a caller can hold a connection without sending
	// its headers.
	readHeaderTimeout = 10 * time.Second
	// readTimeout bounds reading the whole request, including a body that no handler
	// reads: net/http reads the rest of it before it responds. Handlers that read the
	// body have their own limit.
	readTimeout = 20 * time.Second
	// writeTimeout bounds a request and its response, in case the caller does not read
	// it. An upgrade to a control channel removes both limits.
	writeTimeout = time.Minute
	idleTimeout  = 2 * time.Minute
	// maxHeaderBytes leaves space for a token, a cookie and the headers of proxies.
	maxHeaderBytes = 32 << 10
)

// listen opens the HTTP listener and derives the panel's URL and public host from it,
// unless the options specify them.
func (s *Server) listen(ctx context.Context) error {
	if err := s.configureTLS(); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	s.listener = listener
	if err := s.listenACME(ctx); err != nil {
		listener.Close()
		return err
	}
	s.url = s.opts.PublicURL
	switch {
	case s.url != nil:
	case s.opts.ACME.enabled():
		s.url = s.acmeURL()
	default:
		s.url = localURL(listener.Addr(), s.tls != nil)
	}
	s.host = s.opts.PublicHost
	if s.host == "" {
		s.host = s.url.Hostname()
	}
	if s.publicURLUnset() {
		s.logger.WarnContext(ctx, "--public-url is not set: approval links, agents and players are sent to an address "+
			"that may mean nothing on other machines, or whose port they do not reach; set it to the URL at which they reach this panel",
			slog.String("publicUrl", s.url.String()), slog.String("publicHost", s.host))
	}
	return nil
}

// publicURLUnset reports whether others reach the panel, and it does not know at which URL: with ACME it knows the
// host, and the port if that is 443.
func (s *Server) publicURLUnset() bool {
	known := s.opts.ACME.enabled() && s.url.Port() == ""
	return s.opts.PublicURL == nil && !known && s.servesOthers()
}

// servesOthers reports whether other machines can reach the panel, by its own address or
// through a proxy.
func (s *Server) servesOthers() bool {
	tcp, ok := s.listener.Addr().(*net.TCPAddr)
	return !ok || !tcp.IP.IsLoopback() || s.tls != nil || len(s.opts.TrustedProxies) > 0
}

// localURL returns the URL at which this machine can reach a listener.
func localURL(address net.Addr, secure bool) *url.URL {
	u := &url.URL{Scheme: "http", Host: address.String()}
	if secure {
		u.Scheme = "https"
	}
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		u.Host = net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return u
}

// accept starts the HTTP server. It answers with startingRoutes until serve installs
// the panel's own routes. The HTTP server forgets hijacked connections, such as
// control channels: the hub closes those.
func (s *Server) accept(life context.Context) {
	s.http = s.newHTTP(life)
	starting := s.crossOrigin(startingRoutes(s.logger))
	s.routes.Store(&starting)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.serveListener(); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serve HTTP: %w", err))
		}
	}()
	s.addPart("listener", func(context.Context) error {
		// After a complete start, the part of serve has shut the server down already.
		err := s.http.Close()
		<-ended
		return err
	})
}

func (s *Server) serveListener() error {
	if s.tls != nil {
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}

func (s *Server) newHTTP(life context.Context) *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(s.dispatch),
		TLSConfig:         s.tls,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return life },
		ConnContext:       withConn,
		ConnState:         s.connections.track,
		// It logs errors of callers, such as failed TLS handshakes.
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// startingRoutes responds while the panel starts, which can take long if the database
// is unavailable or being migrated. Probes find the panel alive and not ready; other
// requests are told to retry.
func startingRoutes(logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error here means that the caller disconnected.
		_ = json.NewEncoder(w).Encode(types.Health{Status: "ok"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if web.WantsPage(r) {
			web.Starting(w, r)
			return
		}
		problem.Write(w, r, errNotServing)
	})
	return problem.Middleware(logger)(mux)
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	if s.closing.Load() {
		// The caller's next request opens a new connection, to another replica.
		w.Header().Set("Connection", "close")
	}
	s.setTransportSecurity(w, r)
	defer s.connections.serve(r)()
	(*s.routes.Load()).ServeHTTP(w, r)
}

// serve installs the panel's own routes.
func (s *Server) serve(routes http.Handler) {
	s.routes.Store(&routes)
	s.addPart("HTTP", func(ctx context.Context) error {
		// Half of the timeout: a request that hangs must leave time for the parts that
		// stop afterwards.
		ctx, cancel := context.WithTimeout(ctx, s.opts.ShutdownTimeout/2)
		defer cancel()
		err := s.http.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			// Caused by a slow caller, and not a failure of the shutdown.
			s.logger.WarnContext(ctx, "requests aborted that did not end in time")
			return s.http.Close()
		}
		return err
	})
}
