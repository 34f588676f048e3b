package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

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
	// AdminRoles are its roles that are admins here; nil is "*", "admin" and "rootAdmin".
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
