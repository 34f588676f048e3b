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

// gateTTL is how long the feature flag is cached. A change on another replica takes
// effect here within that time.
const gateTTL = time.Second

// gate rejects tunnel operations while the feature is off. It runs before
// authentication, because the contract promises this to every caller.
type gate struct {
	settings interface {
		Settings(ctx context.Context) (db.Settings, error)
	}
	now func() time.Time

	mu     sync.Mutex
	open   bool
	readAt time.Time
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

// isOpen queries the database without holding the lock, so that each request can give
// up by itself while the database is slow.
func (g *gate) isOpen(ctx context.Context) (bool, error) {
	now := g.now()
	g.mu.Lock()
	open, fresh := g.open, !g.readAt.IsZero() && now.Sub(g.readAt) < gateTTL
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

// set caches the flag as read at a time, unless the cached value is newer.
func (g *gate) set(open bool, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at.Before(g.readAt) {
		return
	}
	g.open, g.readAt = open, at
}
