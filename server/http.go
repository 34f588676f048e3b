package server

import (
	"context"
	"crypto/tls"
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
)

const (
	// A caller who does not even send its headers holds a connection this long.
	readHeaderTimeout = 10 * time.Second
	// readTimeout bounds the body, too, of a request whose body nobody wants: net/http
	// reads what is left of it before it answers. Who wants it has a bound of its own.
	readTimeout = 20 * time.Second
	// writeTimeout bounds a request and its answer, which a caller may not read.
	// Neither holds for control channels: an upgrade takes them off.
	writeTimeout = time.Minute
	idleTimeout  = 2 * time.Minute
	// maxHeaderBytes is for a token, a cookie and what proxies add.
	maxHeaderBytes = 32 << 10
)

// listen opens the HTTP listener, and derives from it the addresses that the
// options leave out.
func (s *Server) listen(ctx context.Context) error {
	if s.opts.TLSCertFile != "" {
		certificate, err := tls.LoadX509KeyPair(s.opts.TLSCertFile, s.opts.TLSKeyFile)
		if err != nil {
			return fmt.Errorf("load TLS certificate: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	s.listener = listener
	s.url = s.opts.PublicURL
	if s.url == nil {
		s.url = localURL(listener.Addr(), s.tls != nil)
	}
	s.host = s.opts.PublicHost
	if s.host == "" {
		s.host = s.url.Hostname()
	}
	return nil
}

// localURL is where this machine reaches a listener.
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
	starting := startingRoutes(s.logger)
	s.routes.Store(&starting)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.serveListener(); !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serve HTTP: %w", err))
		}
	}()
	s.started("listener", func(context.Context) error {
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
		// What it says is about callers' mistakes: a broken TLS handshake, a reset.
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// startingRoutes answers while the panel starts, which may take as long as the
// database is away or migrated: whoever probes hears at once that it is alive and
// not ready, and the rest to come back.
func startingRoutes(logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error here is a caller who hung up.
		_ = json.NewEncoder(w).Encode(types.Health{Status: "ok"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, errNotServing) })
	return problem.Middleware(logger)(mux)
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	if s.leaving.Load() {
		// The caller's next request opens a connection, which goes elsewhere.
		w.Header().Set("Connection", "close")
	}
	(*s.routes.Load()).ServeHTTP(w, r)
}

// serve answers requests with the panel's own routes.
func (s *Server) serve(routes http.Handler) {
	s.routes.Store(&routes)
	s.started("HTTP", func(ctx context.Context) error {
		// Half of the time left: a request that hangs must not take it all from the
		// parts that follow.
		ctx, cancel := context.WithTimeout(ctx, s.opts.ShutdownTimeout/2)
		defer cancel()
		err := s.http.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			// The fault of a caller who is slow, and no reason to say that the stop failed.
			s.logger.WarnContext(ctx, "requests cut off that did not end in time")
			return s.http.Close()
		}
		return err
	})
}
