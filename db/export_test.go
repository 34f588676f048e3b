package db

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"
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

// InTransaction runs fn in a transaction. again reads something in it, with ctx.
func (d *DB) InTransaction(ctx context.Context, fn func(again func() error) error) error {
	return d.tx(ctx, func(tx *sqlx.Tx) error {
		return fn(func() error {
			var one int
			return tx.GetContext(ctx, &one, `SELECT 1`)
		})
	})
}

// BackendPID is the process of the server that serves a connection of the pool.
func (d *DB) BackendPID(ctx context.Context) (pid int, err error) {
	err = d.pool.GetContext(ctx, &pid, `SELECT pg_backend_pid()`)
	return pid, err
}

// SetStatementTimeout changes how long a statement may take. It must be called while d is idle.
func (d *DB) SetStatementTimeout(timeout time.Duration) { d.pool.timeout = timeout }

// Waiting is the number of connects and of clients' reports that wait for their batch.
func (d *DB) Waiting() (connects, reports int) {
	return d.batches.connects.Waiting(), d.batches.clientReports.Waiting()
}
