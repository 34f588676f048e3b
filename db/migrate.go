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
// the others wait for it.
func (d *DB) Migrate(ctx context.Context) error {
	provider, err := d.migrator()
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// migrator returns a provider on the pool. The provider must not be closed, because that would close
// the pool.
func (d *DB) migrator() (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockTimeout(migrationLockPeriodSeconds, migrationLockAttempts))
	if err != nil {
		return nil, fmt.Errorf("migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, d.pool.DB.DB, migrations.FS,
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(d.logger))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return provider, nil
}
