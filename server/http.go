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
	"strconv"
	"sync"
	"time"
)

const (
	// A caller who does not even send its headers holds a connection this long.
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
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
	s.started("listener", func(context.Context) error {
		_ = listener.Close() // An error is that the HTTP server has closed it.
		return s.memory.Close()
	})
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

// serve answers requests on the network and in memory. Channels are hijacked
// connections, which the HTTP server forgets: the hub ends those.
func (s *Server) serve(life context.Context, routes http.Handler) {
	server := &http.Server{
		Handler:           routes,
		TLSConfig:         s.tls,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return life },
		// What it says is about callers' mistakes: a broken TLS handshake, a reset.
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	var group sync.WaitGroup
	accept := func(serve func() error) {
		group.Go(func() {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				s.fail(fmt.Errorf("serve HTTP: %w", err))
			}
		})
	}
	accept(func() error { return server.Serve(s.memory) })
	accept(func() error {
		if s.tls != nil {
			return server.ServeTLS(s.listener, "", "")
		}
		return server.Serve(s.listener)
	})
	s.started("HTTP", func(ctx context.Context) error {
		// Half of the time left: a request that hangs must not take it all from the
		// parts that follow.
		ctx, cancel := context.WithTimeout(ctx, s.opts.ShutdownTimeout/2)
		defer cancel()
		err := server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		group.Wait()
		return err
	})
}
