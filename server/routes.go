package server

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/check"
	"github.com/eclitunnel/eclitunnel/server/internal/control"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/live/events"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// build creates the parts that serve requests and returns their handler.
func (s *Server) build(ctx context.Context) (http.Handler, error) {
	authOptions := auth.Options{
		Store: s.db, PublicURL: s.url, TrustedProxies: s.opts.TrustedProxies, NoLocalAccounts: s.opts.NoLocalAccounts,
		AllowedOrigins: s.opts.otherOrigins(), Logger: s.logger,
	}
	provider, err := s.ecliPanel()
	if err != nil {
		return nil, err
	}
	if provider != nil {
		authOptions.Provider = provider
		s.provider = provider
	}
	s.auth, err = auth.New(ctx, authOptions)
	if err != nil {
		return nil, err
	}
	enroller, err := enroll.New(enroll.Options{
		Store:      s.db,
		Tokens:     s.auth,
		PublicHost: s.host,
		PortFirst:  s.opts.Ports.First,
		PortLast:   s.opts.Ports.Last,
	})
	if err != nil {
		return nil, err
	}
	providers, err := oauth.New(ctx, oauth.Options{
		Providers: s.opts.IdentityProviders, Store: s.db, PublicURL: s.url, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	s.addPart("identity providers", func(context.Context) error {
		providers.Close()
		return nil
	})
	_, channels := connectionBounds(openfiles.Limit())
	s.hub, err = control.New(control.Options{
		MaxChannels: channels,
		Store:       s.db,
		Ticket:      s.ticket,
		Keys:        s.auth.TicketKeys,
		ReloadKeys:  s.auth.ReloadKeys,
		PanelID:     s.auth.PanelID,
		Caller:      s.caller,
		Traces:      s.traces,
		Logger:      s.logger,
	})
	if err != nil {
		return nil, err
	}
	mailer, err := s.newMailer()
	if err != nil {
		return nil, err
	}
	s.webhooks, err = webhooks.New(webhooks.Options{
		Store: s.db, PublicURL: s.url, Device: handler.Device(s.opts.Version), Allocation: handler.Allocation, Version: s.opts.Version,
		PrivateTargets: s.opts.WebhookPrivateTargets, Lookup: s.opts.Lookup, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	s.events, err = events.New(events.Options{
		Store: s.db, Authenticate: s.auth.Authenticate, Device: handler.Device(s.opts.Version), Allocation: handler.Allocation, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	agents := s.agents(ctx)
	api, err := handler.New(handler.Options{
		DB:              s.db,
		Auth:            s.auth,
		Enroll:          enroller,
		Providers:       providers,
		NoLocalAccounts: s.opts.NoLocalAccounts,
		EcliPanelURL:    s.opts.EcliPanel.loginURL(),
		PublicURL:       s.url,
		Version:         types.Version{Version: s.opts.Version, Commit: s.opts.Commit, Go: runtime.Version()},
		Ready:           s.check,
		Warnings:        s.warnings,
		AgentDownloads:  func() bool { return agents.Check() == nil },
		ControlChannel:  s.hub,
		Events:          s.events,
		Mailer:          mailer,
		Webhooks:        s.webhooks,
		Checks:          check.New(check.Options{Store: s.db, Lookup: s.opts.Lookup, Logger: s.logger}),
		Logger:          s.logger,
	})
	if err != nil {
		return nil, err
	}
	s.hosts, err = publichost.New(publichost.Options{Store: s.db, Lookup: s.opts.Lookup, Logger: s.logger})
	if err != nil {
		return nil, err
	}
	pages, err := web.Handler(s.crossOrigin(api))
	if err != nil {
		return nil, err
	}
	pages, err = web.Install(web.InstallOptions{Agents: agents, URL: s.url, HostOfRequest: s.publicURLUnset()}, pages)
	if err != nil {
		return nil, err
	}
	return accessLog(s.logger, s.latency, s.traces, pages), nil
}

// agents returns what the panel hands out at /install, and logs if that is nothing.
func (s *Server) agents(ctx context.Context) web.Agents {
	agents := web.Agents{Dir: s.opts.AgentsDir}
	if err := agents.Check(); err != nil {
		level := slog.LevelInfo
		if agents.Dir != "" {
			level = slog.LevelWarn
		}
		s.logger.Log(ctx, level, "there are no agents to hand out at /install", slog.Any("reason", err))
	}
	return agents
}

func (s *Server) ticket(client, server uuid.UUID, tokenVersion int64, serverSeen time.Time) (string, error) {
	ticket, _, err := s.auth.Ticket(client, server, tokenVersion, serverSeen)
	return ticket, err
}

// caller returns the authenticated device of a request for a control channel.
func (s *Server) caller(ctx context.Context) (control.Device, bool) {
	principal := auth.FromContext(ctx)
	device := principal.Device
	if device == nil {
		return control.Device{}, false
	}
	return control.Device{
		ID: device.ID, Kind: types.DeviceKind(device.Kind),
		TokenVersion: device.TokenVersion, TokenKey: principal.TokenKey,
		CalledFrom: publichost.Guess(auth.Address(ctx), s.host),
		Address:    auth.Address(ctx),
	}, true
}
