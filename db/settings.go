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
	// OrganisationCreators are those who may create organisations: CreatorsAdmins or CreatorsEveryone.
	OrganisationCreators string `db:"organisation_creators"`
	// OwnersApprove allows those who will own a tunnel client to approve it. It defaults to false.
	OwnersApprove bool `db:"owners_approve"`
	// Quota are the limits of users and organisations without one of their own, but for admins.
	Quota Quota `db:"quota"`
	UsageRetention
	SiteRules
}

// Who may create organisations. The default is CreatorsAdmins.
const (
	CreatorsAdmins   = "admins"
	CreatorsEveryone = "everyone"
)

const settingsColumns = `tunnels_enabled, anonymous_enrollment, organisation_creators, owners_approve, quota, ` + usageRetentionColumns + `, ` + siteRuleColumns

// SettingsPatch changes the settings that are not nil.
type SettingsPatch struct {
	TunnelsEnabled       *bool
	AnonymousEnrollment  *bool
	OrganisationCreators *string
	OwnersApprove        *bool
	Quota                QuotaPatch
	Usage                UsageRetentionPatch
	RuleDefaults         RulesPatch
	RuleCeiling          RulesPatch
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

// UpdateSettings changes the settings and notifies every replica. Rules concern tunnel servers alone, and the
// quota and how long usage is kept nobody, because they are read where they count.
func (d *DB) UpdateSettings(ctx context.Context, patch SettingsPatch) (Settings, error) {
	var settings Settings
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if patch.Quota != "" {
			if err := lockQuotas(ctx, tx); err != nil {
				return err
			}
		}
		err := checkCondition[Settings](ctx, tx, `SELECT `+settingsColumns+` FROM settings FOR NO KEY UPDATE`)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &settings,
			`UPDATE settings SET
				tunnels_enabled = coalesce($1, tunnels_enabled),
				anonymous_enrollment = coalesce($2, anonymous_enrollment),
				rule_defaults = `+patched("rule_defaults", "$3")+`,
				rule_ceiling = `+patched("rule_ceiling", "$4")+`,
				organisation_creators = coalesce($5, organisation_creators),
				owners_approve = coalesce($6, owners_approve),
				quota = `+patched("quota", "$7")+`,
				usage_minutes_days = coalesce($8, usage_minutes_days),
				usage_hours_days = coalesce($9, usage_hours_days),
				usage_days_days = coalesce($10, usage_days_days)
			RETURNING `+settingsColumns,
			patch.TunnelsEnabled, patch.AnonymousEnrollment, patch.RuleDefaults, patch.RuleCeiling, patch.OrganisationCreators,
			patch.OwnersApprove, patch.Quota, patch.Usage.Minutes, patch.Usage.Hours, patch.Usage.Days)
		if err != nil {
			return err
		}
		quota := SettingsPatch{Quota: patch.Quota, Usage: patch.Usage}
		rules := SettingsPatch{Quota: patch.Quota, Usage: patch.Usage, RuleDefaults: patch.RuleDefaults, RuleCeiling: patch.RuleCeiling}
		switch {
		case patch == quota && quota != (SettingsPatch{}):
			return nil
		case patch == rules && rules != (SettingsPatch{}):
			return notifyServers(ctx, tx)
		}
		return notifyAll(ctx, tx)
	})
	return settings, wrap(err, "update settings")
}
