package eclipanel

import (
	"context"
	"log/slog"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// FollowFeatures sets the panel's feature flag `tunnels` to EcliPanel's, which it asks for
// once per Options.CacheTime, until ctx ends. While EcliPanel cannot be asked, or does not
// have the flag, the panel's stays as it is. It returns nil.
func (p *Provider) FollowFeatures(ctx context.Context) error {
	ticker := time.NewTicker(p.options.CacheTime)
	defer ticker.Stop()
	away := false
	for {
		err := p.followFeatures(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !away {
			p.options.Logger.WarnContext(ctx, "EcliPanel's features are not known; the panel keeps its own", slog.Any("error", err))
		}
		away = err != nil
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
		p.options.Logger.InfoContext(ctx, "tunnels switched by EcliPanel", slog.Bool("enabled", *tunnels))
	}
	return err
}
