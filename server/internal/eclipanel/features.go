package eclipanel

import (
	"context"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// FollowFeatures copies EcliPanel's feature flag `tunnels` to the panel's settings, once per
// Options.CacheTime, until ctx ends. The setting stays as it is while EcliPanel cannot be
// reached or does not have the flag. It returns nil.
func (p *Provider) FollowFeatures(ctx context.Context) error {
	ticker := time.NewTicker(p.options.CacheTime)
	defer ticker.Stop()
	failing := false
	for {
		err := p.followFeatures(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			p.options.Logger.WarnContext(ctx, "cannot read EcliPanel's features; the panel keeps its own setting", slog.Any("error", err))
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Provider) followFeatures(ctx context.Context) error {
	body, err := p.client.get(ctx, auth.Credential{}, "api", "public", "features")
	if err != nil {
		return err
	}
	tunnels, err := parseFeatures(body)
	if err != nil || tunnels == nil {
		return err
	}
	settings, err := p.options.Store.Settings(ctx)
	if err != nil || settings.TunnelsEnabled == *tunnels {
		return err
	}
	_, err = p.options.Store.UpdateSettings(ctx, db.SettingsPatch{TunnelsEnabled: tunnels})
	if err == nil {
		p.options.Logger.InfoContext(ctx, "tunnels switched, as at EcliPanel", slog.Bool("enabled", *tunnels))
	}
	return err
}
