package handler

import (
	"context"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

func needAdmin(ctx context.Context) error {
	if !auth.FromContext(ctx).IsAdmin() {
		return problem.Forbidden("Only an admin can do this.")
	}
	return nil
}

// GetSettings returns the panel's settings.
func (a *api) GetSettings(ctx context.Context, _ server.GetSettingsRequestObject) (server.GetSettingsResponseObject, error) {
	if err := needAdmin(ctx); err != nil {
		return nil, err
	}
	settings, err := a.db.Settings(ctx)
	if err != nil {
		return nil, err
	}
	return server.GetSettings200JSONResponse(toSettings(settings)), nil
}

// UpdateSettings changes the settings that the request contains.
func (a *api) UpdateSettings(ctx context.Context, request server.UpdateSettingsRequestObject) (server.UpdateSettingsResponseObject, error) {
	if err := needAdmin(ctx); err != nil {
		return nil, err
	}
	var patch db.SettingsPatch
	if features := request.Body.Features; features != nil {
		patch.TunnelsEnabled = features.Tunnels
	}
	if enrollment := request.Body.Enrollment; enrollment != nil {
		patch.AnonymousEnrollment = enrollment.Anonymous
	}
	settings, err := a.db.UpdateSettings(ctx, patch)
	if err != nil {
		return nil, err
	}
	a.gate.set(settings.TunnelsEnabled, a.gate.now())
	return server.UpdateSettings200JSONResponse(toSettings(settings)), nil
}

func toSettings(settings db.Settings) types.Settings {
	return types.Settings{
		Features:   types.Features{Tunnels: settings.TunnelsEnabled},
		Enrollment: types.EnrollmentSettings{Anonymous: settings.AnonymousEnrollment},
	}
}
