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
	SiteRules
}

// Who may create organisations. The default is CreatorsAdmins.
const (
	CreatorsAdmins   = "admins"
	CreatorsEveryone = "everyone"
)

const settingsColumns = `tunnels_enabled, anonymous_enrollment, organisation_creators, owners_approve, ` + siteRuleColumns

// SettingsPatch changes the settings that are not nil.
type SettingsPatch struct {
	TunnelsEnabled       *bool
	AnonymousEnrollment  *bool
	OrganisationCreators *string
	OwnersApprove        *bool
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

// UpdateSettings changes the settings and notifies every replica. Rules concern tunnel servers alone.
func (d *DB) UpdateSettings(ctx context.Context, patch SettingsPatch) (Settings, error) {
	var settings Settings
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &settings,
			`UPDATE settings SET
				tunnels_enabled = coalesce($1, tunnels_enabled),
				anonymous_enrollment = coalesce($2, anonymous_enrollment),
				rule_defaults = `+patched("rule_defaults", "$3")+`,
				rule_ceiling = `+patched("rule_ceiling", "$4")+`,
				organisation_creators = coalesce($5, organisation_creators),
				owners_approve = coalesce($6, owners_approve)
			RETURNING `+settingsColumns,
			patch.TunnelsEnabled, patch.AnonymousEnrollment, patch.RuleDefaults, patch.RuleCeiling, patch.OrganisationCreators,
			patch.OwnersApprove)
		if err != nil {
			return err
		}
		rules := SettingsPatch{RuleDefaults: patch.RuleDefaults, RuleCeiling: patch.RuleCeiling}
		if patch == rules && rules != (SettingsPatch{}) {
			return notifyServers(ctx, tx)
		}
		return notifyAll(ctx, tx)
	})
	return settings, wrap(err, "update settings")
}
