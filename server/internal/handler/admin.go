package handler

import (
	"context"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// GetSettings returns the panel's settings.
func (a *api) GetSettings(ctx context.Context, _ server.GetSettingsRequestObject) (server.GetSettingsResponseObject, error) {
	settings, err := a.db.Settings(ctx)
	if err != nil {
		return nil, err
	}
	setTag(ctx, settingsTag(settings))
	answer, err := a.toSettings(ctx, settings)
	return server.GetSettings200JSONResponse(answer), err
}

// UpdateSettings changes the settings that the request contains.
func (a *api) UpdateSettings(ctx context.Context, request server.UpdateSettingsRequestObject) (server.UpdateSettingsResponseObject, error) {
	var patch db.SettingsPatch
	if features := request.Body.Features; features != nil {
		patch.TunnelsEnabled = features.Tunnels
	}
	if enrollment := request.Body.Enrollment; enrollment != nil {
		patch.AnonymousEnrollment, patch.OwnersApprove = enrollment.Anonymous, enrollment.OwnersApprove
	}
	if organisations := request.Body.Organisations; organisations != nil && organisations.Creators != nil {
		creators := string(*organisations.Creators)
		patch.OrganisationCreators = &creators
	}
	if quota := request.Body.Quota; quota != nil {
		var err error
		if patch.Quota, err = quotaPatch(*quota); err != nil {
			return nil, err
		}
	}
	if usage := request.Body.Usage; usage != nil {
		patch.Usage = db.UsageRetentionPatch{Minutes: usage.MinuteDays, Hours: usage.HourDays, Days: usage.DayDays}
	}
	if rules := request.Body.Rules; rules != nil {
		var err error
		if patch.RuleDefaults, err = rulesPatch(rules.Defaults); err != nil {
			return nil, err
		}
		if patch.RuleCeiling, err = rulesPatch(rules.Ceiling); err != nil {
			return nil, err
		}
	}
	settings, err := a.db.UpdateSettings(ifMatch(ctx, settingsTag), patch)
	if err != nil {
		return nil, err
	}
	a.gate.set(settings.TunnelsEnabled, a.gate.now())
	setTag(ctx, settingsTag(settings))
	answer, err := a.toSettings(ctx, settings)
	return server.UpdateSettings200JSONResponse(answer), err
}

func (a *api) toSettings(ctx context.Context, settings db.Settings) (types.Settings, error) {
	rules, err := toRuleSettings(settings.SiteRules)
	if err != nil {
		return types.Settings{}, err
	}
	warnings, err := a.warnings(ctx)
	return types.Settings{
		Features:      toFeatures(settings),
		Enrollment:    toEnrollmentSettings(settings),
		Organisations: toOrganisationSettings(settings),
		Quota:         toQuotaLimits(settings.Quota),
		Usage:         types.UsageSettings{MinuteDays: settings.Minutes, HourDays: settings.Hours, DayDays: settings.Days},
		Rules:         rules,
		Warnings:      warnings,
	}, err
}

func toFeatures(settings db.Settings) types.Features {
	return types.Features{Tunnels: settings.TunnelsEnabled}
}

func toEnrollmentSettings(settings db.Settings) types.EnrollmentSettings {
	return types.EnrollmentSettings{Anonymous: settings.AnonymousEnrollment, OwnersApprove: settings.OwnersApprove}
}

func toOrganisationSettings(settings db.Settings) types.OrganisationSettings {
	return types.OrganisationSettings{Creators: types.OrganisationCreators(settings.OrganisationCreators)}
}
