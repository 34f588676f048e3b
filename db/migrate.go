package db

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/eclitunnel/eclitunnel/db/migrations"
)

// A replica tries to acquire the migration lock every second for five minutes.
const (
	migrationLockPeriodSeconds = 1
	migrationLockAttempts      = 300
)

// Migrate migrates the schema to this version. Several replicas may call it at once: one migrates, and
// the others wait for it. It returns [ErrNewerSchema] for the schema of a later
// version of this program, and changes nothing then.
func (d *DB) Migrate(ctx context.Context) error {
	provider, err := d.migrator()
	if err != nil {
		return err
	}
	version, err := d.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	if known := sources[len(sources)-1].Version; version > known {
		return fmt.Errorf("%w: it has version %d, and this program knows versions up to %d; "+
			"start the newer version of the panel that migrated it, or restore a backup from before", ErrNewerSchema, version, known)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// SchemaVersion returns the number of the last migration that the database has had, 0 where it has
// had none. It changes nothing.
func (d *DB) SchemaVersion(ctx context.Context) (int64, error) {
	var exists bool
	var version int64
	err := d.devices.GetContext(ctx, &exists, `SELECT to_regclass('goose_db_version') IS NOT NULL`)
	if err == nil && exists {
		err = d.devices.GetContext(ctx, &version, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`)
	}
	return version, wrap(err, "schema version")
}

// migrator returns a provider on the pool. The provider must not be closed, because that would close
// the pool.
func (d *DB) migrator() (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockTimeout(migrationLockPeriodSeconds, migrationLockAttempts))
	if err != nil {
		return nil, fmt.Errorf("migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, d.requests.DB.DB, migrations.FS,
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(d.logger))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}
