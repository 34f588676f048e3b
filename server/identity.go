package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/eclipanel"
)

// maxCacheTime bounds how long a session that has ended at EcliPanel is still accepted.
const maxCacheTime = 5 * time.Minute

// EcliPanel configures the panel to accept the sessions and keys of EcliPanel. The zero
// value accepts none.
type EcliPanel struct {
	// URL is where EcliPanel's API answers, without its path /api. nil asks nobody, and the
	// other fields have no effect.
	URL *url.URL
	// Cookie is the name of its session cookie; empty is "token".
	Cookie string
	// Origins are those of its pages, which may use the API as those of
	// Options.AllowedOrigins may. Empty is that of URL, unless it is http and the panel is
	// reached over https.
	Origins []string
	// AdminRoles are its roles that are admins here; nil is "*", "admin" and "rootAdmin", and empty is none.
	AdminRoles []string
	// CacheTime is how long its answers are cached, at most 5 minutes; 0 is 10 seconds.
	CacheTime time.Duration
	// Features makes the panel's feature flag `tunnels` follow EcliPanel's.
	Features bool
}

func (e EcliPanel) check() error {
	if e.URL == nil {
		return nil
	}
	if err := checkBase(e.URL); err != nil {
		return fmt.Errorf("EcliPanel's URL: %w", err)
	}
	if e.CacheTime < 0 || e.CacheTime > maxCacheTime {
		return fmt.Errorf("EcliPanel's cache time: %v is not between 0 and %v", e.CacheTime, maxCacheTime)
	}
	return nil
}

// checkBase checks a URL below which requests are made.
func checkBase(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not http or https", u.Redacted())
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q is not just a scheme, a host and a path", u.Redacted())
	}
	return nil
}

// loginURL returns where people log in at EcliPanel: at its pages, if they are not at URL. It
// is empty without EcliPanel.
func (e EcliPanel) loginURL() string {
	if e.URL == nil {
		return ""
	}
	for _, origin := range e.Origins {
		if page, err := url.Parse(origin); err == nil && page.Scheme == e.URL.Scheme && strings.EqualFold(page.Host, e.URL.Host) {
			return e.URL.String()
		}
	}
	if len(e.Origins) > 0 {
		return e.Origins[0]
	}
	return e.URL.String()
}

// makesAdmins reports whether people with a role at EcliPanel are admins here.
func (e EcliPanel) makesAdmins() bool {
	return e.URL != nil && (e.AdminRoles == nil || slices.ContainsFunc(e.AdminRoles, func(role string) bool { return role != "" }))
}

// warnNoAdmin logs that nobody can log in as an admin: local accounts are switched off, no
// identity provider makes admins, and none of their people is one.
func (s *Server) warnNoAdmin(ctx context.Context) {
	if !s.opts.NoLocalAccounts || s.opts.EcliPanel.makesAdmins() {
		return
	}
	var names []string
	if s.opts.EcliPanel.URL != nil {
		names = append(names, eclipanel.Name)
	}
	for _, provider := range s.opts.IdentityProviders {
		if len(provider.Admins) > 0 {
			return
		}
		names = append(names, provider.ID)
	}
	exists, err := s.db.HasAdminOf(ctx, names)
	switch {
	case err != nil:
		s.logger.WarnContext(ctx, "admins of identity providers not looked for", slog.Any("error", err))
	case !exists:
		s.logger.WarnContext(ctx, "local accounts are switched off and no identity provider makes admins, so nobody can log in as an admin; "+
			"set admins for a provider in the file of --identity-providers, or --eclipanel-admin-roles")
	}
}

// forgetRoles forgets the roles of identity providers that are not in use any more, or do not decide about them.
func (s *Server) forgetRoles(ctx context.Context) {
	var deciding []string
	if s.opts.EcliPanel.URL != nil {
		deciding = append(deciding, eclipanel.Name)
	}
	for _, provider := range s.opts.IdentityProviders {
		if len(provider.Admins) > 0 {
			deciding = append(deciding, provider.ID)
		}
	}
	switch err := s.db.ForgetRolesExcept(ctx, deciding); {
	case errors.Is(err, db.ErrLastAdmin):
		s.logger.WarnContext(ctx, "roles of identity providers stay that do not decide about them any more, because no other admin is left; "+
			"make one, and restart the panel")
	case err != nil:
		s.logger.WarnContext(ctx, "roles of former identity providers not looked for", slog.Any("error", err))
	}
}

// checkAccounts refuses a panel that nobody can log in to.
func (o Options) checkAccounts() error {
	if o.NoLocalAccounts && o.EcliPanel.URL == nil && len(o.IdentityProviders) == 0 {
		return errors.New("local accounts: they cannot be switched off without an identity provider")
	}
	return nil
}

// ecliPanel returns the provider of the options, and nil if there is none.
func (s *Server) ecliPanel() (*eclipanel.Provider, error) {
	options := s.opts.EcliPanel
	if options.URL == nil {
		return nil, nil
	}
	provider, err := eclipanel.New(eclipanel.Options{
		Store:          s.db,
		URL:            options.URL,
		Cookie:         options.Cookie,
		AdminRoles:     options.AdminRoles,
		CacheTime:      options.CacheTime,
		TrustedProxies: s.opts.TrustedProxies,
		Logger:         s.logger,
	})
	if err != nil {
		return nil, err
	}
	// It stops after the requests that wait for it, and before the database.
	s.addPart("EcliPanel", func(context.Context) error {
		provider.Close()
		return nil
	})
	return provider, nil
}
