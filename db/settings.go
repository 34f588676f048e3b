package db

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// Settings are what an admin switches while the panel runs. Both are true at first.
type Settings struct {
	// TunnelsEnabled is the feature flag of everything under /api/tunnel.
	TunnelsEnabled bool `db:"tunnels_enabled"`
	// AnonymousEnrollment lets a client start enrollment without a session.
	AnonymousEnrollment bool `db:"anonymous_enrollment"`
}

// SettingsPatch changes the settings that are not nil.
type SettingsPatch struct {
	TunnelsEnabled      *bool
	AnonymousEnrollment *bool
}

// Settings reads the settings.
func (d *DB) Settings(ctx context.Context) (Settings, error) {
	var settings Settings
	err := d.pool.GetContext(ctx, &settings, `SELECT tunnels_enabled, anonymous_enrollment FROM settings`)
	return settings, wrap(err, "settings")
}

// UpdateSettings changes settings and notifies every replica.
func (d *DB) UpdateSettings(ctx context.Context, patch SettingsPatch) (Settings, error) {
	var settings Settings
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &settings,
			`UPDATE settings SET
				tunnels_enabled = coalesce($1, tunnels_enabled),
				anonymous_enrollment = coalesce($2, anonymous_enrollment)
			RETURNING tunnels_enabled, anonymous_enrollment`,
			patch.TunnelsEnabled, patch.AnonymousEnrollment)
		if err != nil {
			return err
		}
		return notifyAll(ctx, tx)
	})
	return settings, wrap(err, "update settings")
}
