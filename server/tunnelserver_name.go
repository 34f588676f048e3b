package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

// namePoll is how often the panel looks whether another one is alive. Only the
// database knows, which gives no signal.
const namePoll = 100 * time.Millisecond

// claimName decides which embedded tunnel server of the database is this panel's,
// and returns its name. Without a name in the options that is the one of the host,
// or, where there is none and no other panel runs, the one whose ports nobody
// serves: the machine was renamed, or the container made anew.
func (s *Server) claimName(ctx context.Context) (string, error) {
	name := s.opts.TunnelServer.Name
	explicit := name != ""
	if !explicit {
		name = s.opts.TunnelServer.HostName
	}
	servers, err := s.db.EmbeddedServers(ctx)
	if err != nil {
		return "", err
	}
	if !explicit && without(servers, name) && len(servers) > 0 {
		if servers, err = s.awaitLeases(ctx); err != nil {
			return "", err
		}
		if former, ok := former(servers); ok {
			err := s.db.RenameEmbeddedServer(ctx, former.Name, name)
			if err == nil {
				s.logger.InfoContext(ctx, "tunnel server keeps its ports under the new name of this machine",
					slog.String("formerName", former.Name), slog.String("serverName", name), slog.Int("allocations", former.Allocations))
				return name, nil
			}
			// Another panel that started at the same moment may have been first.
			if !errors.Is(err, db.ErrNotFound) && !errors.Is(err, db.ErrConflict) {
				return "", err
			}
		}
	}
	for _, other := range servers {
		if other.Name != name && !other.Online && other.Allocations > 0 {
			s.logger.WarnContext(ctx, "no panel runs this tunnel server, and nobody can play on its ports; "+
				"if it belonged to this panel, start the panel with --tunnel-server-name and the lost name",
				slog.String("lostName", other.Name), slog.Int("allocations", other.Allocations), slog.String("serverName", name))
		}
	}
	return name, nil
}

func without(servers []db.EmbeddedUse, name string) bool {
	for _, server := range servers {
		if server.Name == name {
			return false
		}
	}
	return true
}

// former returns the tunnel server that this panel had under another name, where
// there is no doubt: no other panel runs one, and one alone has ports, or is there
// at all.
func former(servers []db.EmbeddedUse) (db.EmbeddedUse, bool) {
	var used []db.EmbeddedUse
	for _, server := range servers {
		if server.Online {
			return db.EmbeddedUse{}, false
		}
		if server.Allocations > 0 {
			used = append(used, server)
		}
	}
	switch {
	case len(used) == 1:
		return used[0], true
	case len(used) == 0 && len(servers) == 1:
		return servers[0], true
	default:
		return db.EmbeddedUse{}, false
	}
}

// awaitLeases lists the embedded tunnel servers once it is known of each whether it
// runs: the panel of one that looks online may have been killed a moment ago, or have
// stopped without releasing its lease, which shows when the lease is not renewed.
func (s *Server) awaitLeases(ctx context.Context) ([]db.EmbeddedUse, error) {
	seen := make(map[string]time.Time)
	ticker := time.NewTicker(namePoll)
	defer ticker.Stop()
	for {
		servers, err := s.db.EmbeddedServers(ctx)
		if err != nil {
			return nil, err
		}
		unknown := false
		for i, server := range servers {
			if s.opts.Database.URL == "" {
				// The panel's own database, whose lock this process holds: there is no other panel.
				servers[i].Online = false
				continue
			}
			if !server.Online {
				continue
			}
			first, ok := seen[server.Name]
			if !ok {
				seen[server.Name] = server.RenewedAt
			}
			unknown = unknown || !ok || server.RenewedAt.Equal(first)
		}
		if !unknown {
			return servers, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
