// Package handler serves the REST API: every operation of the contract, one file
// per tag. A handler authorises, calls and converts; the rules themselves live in
// auth, enroll and db, and what the contract can express is checked before a
// handler is reached.
package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// Options is what the API needs. All but Logger and Now are required.
type Options struct {
	DB     *db.DB
	Auth   *auth.Auth
	Enroll *enroll.Enroller
	// PublicURL is where people reach the panel; the pages they are sent to lie
	// below it.
	PublicURL *url.URL
	// Version is what /api/version answers.
	Version types.Version
	// Ready says why the panel cannot serve requests, as a *problem.Error, or nil
	// when it can.
	Ready func(ctx context.Context) error
	// ControlChannel serves GET /api/tunnel/ws. The device that asks is in the
	// request's context (auth.FromContext), and w can be hijacked.
	ControlChannel http.Handler
	// Logger gets the causes of failed requests; nil is slog.Default.
	Logger *slog.Logger
	// Now is the clock of the feature flag's cache; nil is time.Now.
	Now func() time.Time
}

// api implements the operations.
type api struct {
	db        *db.DB
	auth      *auth.Auth
	enroll    *enroll.Enroller
	publicURL *url.URL
	version   types.Version
	ready     func(ctx context.Context) error
	gate      *gate
}

var _ server.StrictServerInterface = (*api)(nil)

// New returns the handler of every path in the contract. Any other path is
// answered 404 not_found.
func New(options Options) (http.Handler, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	a := &api{
		db:        options.DB,
		auth:      options.Auth,
		enroll:    options.Enroll,
		publicURL: options.PublicURL,
		version:   options.Version,
		ready:     options.Ready,
		gate:      &gate{settings: options.DB, now: options.Now},
	}
	mux, err := validate.New(validate.Options{
		Contract:      eclitunnel.OpenAPI,
		Authenticator: options.Auth,
		Admit:         a.gate.admit,
	})
	if err != nil {
		return nil, err
	}
	if err := a.mount(mux, options.ControlChannel); err != nil {
		return nil, err
	}
	return problem.Middleware(options.Logger)(private(options.Auth.WithAddress(mux))), nil
}

func (o *Options) check() error {
	if o.DB == nil || o.Auth == nil || o.Enroll == nil || o.PublicURL == nil || o.Ready == nil || o.ControlChannel == nil {
		return errors.New("handler: DB, Auth, Enroll, PublicURL, Ready and ControlChannel are required")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func (a *api) mount(mux *validate.Mux, controlChannel http.Handler) error {
	strict := server.NewStrictHandlerWithOptions(a, nil, server.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  undecodable,
		ResponseErrorHandlerFunc: problem.Write,
	})
	server.HandlerWithOptions(strict, server.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: undecodable,
	})
	contract, err := mux.JSON()
	if err != nil {
		return err
	}
	mux.HandleFunc("GET /openapi.json", serveContract(contract))
	mux.HandleFunc("GET /api/tunnel/ws", controlChannel.ServeHTTP)
	if missing := mux.Unserved(); len(missing) > 0 {
		return fmt.Errorf("operations without a handler: %v", missing)
	}
	return nil
}

// private keeps answers, many of which hold tokens, out of shared caches
// (RFC 6749 section 5.1).
func private(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
