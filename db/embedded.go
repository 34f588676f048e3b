package db

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// EmbeddedServer describes the tunnel server inside a panel.
type EmbeddedServer struct {
	// Name tells the embedded tunnel servers of several panels apart.
	Name                string
	PublicHost          string
	PortFirst, PortLast int
}

// EnsureEmbeddedServer makes the device of an embedded tunnel server where it is absent, approved
// and with a token version, and otherwise brings its host and ports up to date. It is
// notified when the host changed, with its clients.
func (d *DB) EnsureEmbeddedServer(ctx context.Context, server EmbeddedServer) (Device, error) {
	var device Device
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		var hosts []string
		err := tx.SelectContext(ctx, &hosts,
			`SELECT public_host FROM devices WHERE embedded_name = $1 FOR NO KEY UPDATE`, server.Name)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &device,
			`INSERT INTO devices AS d (name, embedded_name, kind, created_at, expires_at, approved_at,
				token_version, public_host, port_first, port_last)
			VALUES ($1, $1, 'server', now(), now(), now(), 1, $2, $3, $4)
			ON CONFLICT (embedded_name) DO UPDATE SET
				public_host = excluded.public_host, host_due = NULL, port_first = excluded.port_first, port_last = excluded.port_last
			RETURNING `+deviceColumns,
			server.Name, server.PublicHost, server.PortFirst, server.PortLast)
		if err != nil {
			return err
		}
		if len(hosts) == 0 || hosts[0] == server.PublicHost {
			return nil
		}
		return notifyHost(ctx, tx, device.ID)
	})
	return device, wrap(err, "ensure embedded server %q", server.Name)
}

// EmbeddedUse is an embedded tunnel server as the database knows it.
type EmbeddedUse struct {
	ID uuid.UUID `db:"id"`
	// Name is its [EmbeddedServer].Name.
	Name string `db:"embedded_name"`
	// Allocations is how many ports it has given.
	Allocations int `db:"allocations"`
	// Online means that it is connected to a panel whose lease has not run out, and RenewedAt when
	// that panel last renewed its lease. It is the zero time while it is not online.
	Online    bool      `db:"online"`
	RenewedAt time.Time `db:"renewed_at"`
}

// EmbeddedServers lists the embedded tunnel servers of all panels, by name.
func (d *DB) EmbeddedServers(ctx context.Context) ([]EmbeddedUse, error) {
	var rows []EmbeddedUse
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT d.id, d.embedded_name, `+deviceOnline+` AS online,
			(SELECT count(*) FROM allocations a WHERE a.server_id = d.id AND a.retires IS NULL) AS allocations,
			coalesce((SELECT r.renewed_at FROM replicas r WHERE r.id = d.replica_id AND r.lease_expires_at > now()),
				'0001-01-01 00:00:00Z') AS renewed_at
		FROM devices d WHERE d.embedded_name IS NOT NULL ORDER BY d.embedded_name`)
	return rows, wrap(err, "embedded servers")
}

// RenameEmbeddedServer gives an embedded tunnel server, with its ports, to the panel of another name.
// It returns [ErrConflict] where that name is taken, and [ErrNotFound] where none has the first name
// any more.
func (d *DB) RenameEmbeddedServer(ctx context.Context, from, to string) error {
	result, err := d.devices.ExecContext(ctx, `UPDATE devices SET embedded_name = $2 WHERE embedded_name = $1`, from, to)
	if err == nil {
		var renamed int64
		if renamed, err = result.RowsAffected(); err == nil && renamed == 0 {
			err = ErrNotFound
		}
	}
	return wrap(err, "rename embedded server %q", from)
}
