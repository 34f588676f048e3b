// Package handler implements the REST API: every operation of the contract, one file
// per tag. A handler authorises the caller, calls other packages and converts types.
// The rules are in packages auth, enroll and db; package validate has already checked
// the request against the contract.
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
	"github.com/eclitunnel/eclitunnel/server/internal/check"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/idempotency"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// Mailer sends mail to people. Its errors have no secrets.
type Mailer interface {
	PasswordLink(ctx context.Context, to, link string, expires time.Time) error
}

// Options configures the API. All fields but Mailer, NoLocalAccounts, EcliPanelURL, Warnings, AgentDownloads, Logger and Now are required.
type Options struct {
	DB     *db.DB
	Auth   *auth.Auth
	Enroll *enroll.Enroller
	// Providers are the identity providers at which people log in.
	Providers *oauth.Providers
	// NoLocalAccounts means that people do not log in by email and password.
	NoLocalAccounts bool
	// EcliPanelURL is where people log in at EcliPanel; empty if its sessions are not accepted.
	EcliPanelURL string
	// PublicURL is the panel's URL for people, below which its pages are served.
	PublicURL *url.URL
	// Version is the response of /api/version.
	Version types.Version
	// Ready returns nil if the panel can serve requests, otherwise the reason as a
	// *problem.Error.
	Ready func(ctx context.Context) error
	// Warnings returns what an admin should change in the settings of the panel's start;
	// nil is nothing.
	Warnings func(ctx context.Context) ([]types.SettingsWarning, error)
	// AgentDownloads returns whether the panel hands out agents at /install; nil is never.
	AgentDownloads func() bool
	// ControlChannel serves GET /api/tunnel/ws. The request's context contains the
	// device (auth.FromContext), and the response writer is an http.Hijacker.
	ControlChannel http.Handler
	// Events serves GET /api/events. The request's context contains the caller.
	Events http.Handler
	// Mailer sends what people would otherwise be handed by an admin; nil sends nothing.
	Mailer Mailer
	// Webhooks sends messages to people's URLs.
	Webhooks Webhooks
	// Checks finds out whether players can join.
	Checks *check.Checker
	// Logger logs the causes of failed requests; nil is slog.Default.
	Logger *slog.Logger
	// Now is the clock of the cached feature flag; nil is time.Now.
	Now func() time.Time
}

// api implements the operations of the contract.
type api struct {
	db        *db.DB
	auth      *auth.Auth
	enroll    *enroll.Enroller
	providers *oauth.Providers
	noLocal   bool   // People do not log in by email and password.
	eclipanel string // Options.EcliPanelURL.
	publicURL *url.URL
	version   types.Version
	ready     func(ctx context.Context) error
	warnings  func(ctx context.Context) ([]types.SettingsWarning, error)
	downloads func() bool
	gate      *gate
	mailer    Mailer // nil sends nothing.
	webhooks  Webhooks
	checks    *check.Checker
	repeats   *idempotency.Keys
	logger    *slog.Logger
}

var _ server.StrictServerInterface = (*api)(nil)

// New returns a handler for every path of the contract. It responds with 404 not_found
// to any other path.
func New(options Options) (http.Handler, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	a := &api{
		db:        options.DB,
		auth:      options.Auth,
		enroll:    options.Enroll,
		providers: options.Providers,
		noLocal:   options.NoLocalAccounts,
		eclipanel: options.EcliPanelURL,
		publicURL: options.PublicURL,
		version:   options.Version,
		ready:     options.Ready,
		warnings:  options.Warnings,
		downloads: options.AgentDownloads,
		gate:      &gate{settings: options.DB, now: options.Now},
		mailer:    options.Mailer,
		webhooks:  options.Webhooks,
		checks:    options.Checks,
		repeats:   idempotency.New(options.DB, options.Logger),
		logger:    options.Logger,
	}
	mux, err := validate.New(validate.Options{
		Contract:      eclitunnel.OpenAPI,
		Authenticator: options.Auth,
		Admit:         a.gate.admit,
		Refused:       a.refused,
		Around:        a.around,
	})
	if err != nil {
		return nil, err
	}
	if err := a.mount(mux, options.ControlChannel, options.Events); err != nil {
		return nil, err
	}
	return problem.Middleware(options.Logger)(private(options.Auth.WithAddress(mux))), nil
}

func (o *Options) check() error {
	if o.DB == nil || o.Auth == nil || o.Enroll == nil || o.Providers == nil || o.PublicURL == nil || o.Ready == nil || o.ControlChannel == nil ||
		o.Webhooks == nil || o.Checks == nil || o.Events == nil {
		return errors.New("handler: DB, Auth, Enroll, Providers, PublicURL, Ready, ControlChannel, Webhooks, Checks and Events are required")
	}
	if o.Warnings == nil {
		o.Warnings = func(context.Context) ([]types.SettingsWarning, error) { return []types.SettingsWarning{}, nil }
	}
	if o.AgentDownloads == nil {
		o.AgentDownloads = func() bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func (a *api) mount(mux *validate.Mux, controlChannel, events http.Handler) error {
	strict := server.NewStrictHandlerWithOptions(a, nil, server.StrictHTTPServerOptions{
		RequestErrorHandlerFunc: undecodable,
		ResponseErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) {
			a.noteQuota(r.Context(), err)
			problem.Write(w, r, err)
		},
	})
	server.HandlerWithOptions(strict, server.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: undecodable,
	})
	contract, err := mux.JSON()
	if err != nil {
		return err
	}
	mux.HandleFunc("GET /openapi.json", serveContract("application/json", contract))
	mux.HandleFunc("GET /openapi.yaml", serveContract("application/yaml", eclitunnel.OpenAPI))
	mux.HandleFunc("GET /api/tunnel/ws", controlChannel.ServeHTTP)
	mux.HandleFunc("GET /api/events", events.ServeHTTP)
	mux.HandleFunc("GET /api/auth/providers/{id}/login", a.beginProviderLogin)
	mux.HandleFunc("GET /api/auth/providers/{id}/callback", a.finishProviderLogin)
	if missing := mux.Unserved(); len(missing) > 0 {
		return fmt.Errorf("operations without a handler: %v", missing)
	}
	return nil
}

// private keeps responses out of caches, since many contain tokens (RFC 6749
// section 5.1).
func private(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
