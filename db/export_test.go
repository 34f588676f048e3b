package db

import (
	"context"
	"time"
)

// MigrateDown reverts every migration.
func (d *DB) MigrateDown(ctx context.Context) error {
	provider, err := d.migrator()
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, 0)
	return err
}

// SpeedUpListener shortens the time in which the listener detects a silent peer.
func (d *DB) SpeedUpListener() {
	d.listen.ping, d.listen.silence = 50*time.Millisecond, 300*time.Millisecond
}
