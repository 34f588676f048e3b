package db

import (
	"context"
	"time"

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

// SigningKey is an Ed25519 key that the panel signs tokens with.
type SigningKey struct {
	ID string `db:"id"`
	// Seed is the private key as RFC 8032 defines it, 32 bytes.
	Seed      []byte    `db:"seed"`
	CreatedAt time.Time `db:"created_at"`
}

// EnsureSigningKey stores candidate where there is no key yet and returns all keys, newest first.
// Replicas that start together agree on one.
func (d *DB) EnsureSigningKey(ctx context.Context, candidate SigningKey) ([]SigningKey, error) {
	var keys []SigningKey
	err := d.tx(ctx, func(tx *sqlx.Tx) error {
		// The lock conflicts with itself: a second replica sees the first one's key.
		if _, err := tx.ExecContext(ctx, `LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO signing_keys (id, seed, created_at)
			SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM signing_keys)`,
			candidate.ID, candidate.Seed, stamp(candidate.CreatedAt))
		if err != nil {
			return err
		}
		keys = nil
		return tx.SelectContext(ctx, &keys,
			`SELECT id, seed, created_at FROM signing_keys ORDER BY created_at DESC, id`)
	})
	return keys, wrap(err, "ensure signing key")
}
