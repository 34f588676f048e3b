package db

import (
	"context"
	"time"
)

// MigrateDown undoes every migration.
func (d *DB) MigrateDown(ctx context.Context) error {
	provider, err := d.migrator()
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, 0)
	return err
}

// SpeedUpListener makes the listener find silence in a fraction of the usual time.
func (d *DB) SpeedUpListener() {
	d.listen.ping, d.listen.silence = 50*time.Millisecond, 300*time.Millisecond
}
