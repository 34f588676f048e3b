package handler

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// gateTTL is how long the feature flag is remembered, so that it is not a
// query per request: a flag turned off on another replica holds here within it.
const gateTTL = time.Second

// gate turns tunnel operations away while the feature is off. That comes before
// the credential is looked at, since the contract promises it for every caller.
type gate struct {
	settings interface {
		Settings(ctx context.Context) (db.Settings, error)
	}
	now func() time.Time

	mu      sync.Mutex
	open    bool
	askedAt time.Time
}

func (g *gate) admit(r *http.Request, path string) error {
	if !strings.HasPrefix(path, "/api/tunnel/") {
		return nil
	}
	open, err := g.isOpen(r.Context())
	if err != nil {
		return err
	}
	if !open {
		return problem.FeatureDisabled()
	}
	return nil
}

// isOpen asks the database outside the lock: requests that come while it is slow
// ask for themselves, and each can give up by itself.
func (g *gate) isOpen(ctx context.Context) (bool, error) {
	now := g.now()
	g.mu.Lock()
	open, fresh := g.open, !g.askedAt.IsZero() && now.Sub(g.askedAt) < gateTTL
	g.mu.Unlock()
	if fresh {
		return open, nil
	}
	settings, err := g.settings.Settings(ctx)
	if err != nil {
		return false, err
	}
	g.set(settings.TunnelsEnabled, now)
	return settings.TunnelsEnabled, nil
}

// set remembers the flag as it was at a time, unless something later is known.
func (g *gate) set(open bool, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at.Before(g.askedAt) {
		return
	}
	g.open, g.askedAt = open, at
}
