package db

import (
	"context"
	"slices"

	"github.com/jmoiron/sqlx"
)

// Settings are the settings that an admin can change while the panel runs. Both features default to true,
// and there are no rules by default.
type Settings struct {
	// TunnelsEnabled enables all operations under /api/tunnel.
	TunnelsEnabled bool `db:"tunnels_enabled"`
	// AnonymousEnrollment allows a client to start an enrollment without a session.
	AnonymousEnrollment bool `db:"anonymous_enrollment"`
	SiteRules
}

const settingsColumns = `tunnels_enabled, anonymous_enrollment, ` + siteRuleColumns

// SettingsPatch changes the settings that are not nil.
type SettingsPatch struct {
	TunnelsEnabled      *bool
	AnonymousEnrollment *bool
	RuleDefaults        RulesPatch
	RuleCeiling         RulesPatch
}

// Settings returns the settings. Concurrent calls share a statement.
func (d *DB) Settings(ctx context.Context) (Settings, error) {
	settings, err := d.batches.settings.Do(ctx, struct{}{})
	return settings, wrap(err, "settings")
}

// settings returns the [DB.Settings] once for each call.
func (d *DB) settings(ctx context.Context, calls []struct{}) ([]Settings, error) {
	var settings Settings
	err := d.devices.GetContext(ctx, &settings, `SELECT `+settingsColumns+` FROM settings`)
	return slices.Repeat([]Settings{settings}, len(calls)), err
}

// UpdateSettings changes the settings and notifies every replica. Rules concern tunnel servers alone.
func (d *DB) UpdateSettings(ctx context.Context, patch SettingsPatch) (Settings, error) {
	var settings Settings
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &settings,
			`UPDATE settings SET
				tunnels_enabled = coalesce($1, tunnels_enabled),
				anonymous_enrollment = coalesce($2, anonymous_enrollment),
				rule_defaults = `+patched("rule_defaults", "$3")+`,
				rule_ceiling = `+patched("rule_ceiling", "$4")+`
			RETURNING `+settingsColumns,
			patch.TunnelsEnabled, patch.AnonymousEnrollment, patch.RuleDefaults, patch.RuleCeiling)
		if err != nil {
			return err
		}
		rules := patch.RuleDefaults != "" || patch.RuleCeiling != ""
		if rules && patch.TunnelsEnabled == nil && patch.AnonymousEnrollment == nil {
			return notifyServers(ctx, tx)
		}
		return notifyAll(ctx, tx)
	})
	return settings, wrap(err, "update settings")
}
