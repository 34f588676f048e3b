package db

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

// Addresses are IP addresses, separated by spaces: rows with them can be compared.
type Addresses string

// JoinAddresses returns a list of addresses as Addresses.
func JoinAddresses(list []string) Addresses { return Addresses(strings.Join(list, " ")) }

// List returns the addresses.
func (a Addresses) List() []string { return strings.Fields(string(a)) }

// Host is what is known about the public host of a tunnel server.
type Host struct {
	PublicHost string `db:"public_host"` // a name or an IP address
	// HostGuessed means that nobody has set PublicHost. It follows the address from which the tunnel
	// server connects.
	HostGuessed bool `db:"host_guessed"`
	// PublicAddresses are those that the name had when it was last looked up with success; none for an
	// address.
	PublicAddresses Addresses `db:"public_addresses"`
	// UnresolvedSince is since when the name has not existed; nil if it exists.
	UnresolvedSince *time.Time `db:"unresolved_since"`
}

const (
	// hostGuessed is whether the public host of a device d is a guess.
	hostGuessed = `coalesce(d.guessed_host = d.public_host, false)`
	// guess is the public host of a device d that is guessed from now on.
	guess = `coalesce(nullif(d.called_from, ''), d.public_host)`
	// hostColumns are the columns of a Host, from devices d. What was found out about an earlier host
	// does not count.
	hostColumns = `d.public_host, ` + hostGuessed + ` AS host_guessed,
	CASE WHEN d.resolved_host = d.public_host THEN d.public_addresses ELSE '' END AS public_addresses,
	CASE WHEN d.resolved_host = d.public_host THEN d.unresolved_since END AS unresolved_since`
)

// HostCheck is a tunnel server whose public host is due to be checked.
type HostCheck struct {
	ID   uuid.UUID `db:"id"`
	Name string    `db:"name"`
	Host
	// Called means that the tunnel server has connected, or has got another host, since the last check.
	Called bool `db:"called"`
	// CalledFrom is [Hello].CalledFrom of the last connection; empty if it is not known.
	CalledFrom string `db:"called_from"`
	// RelayPort and Fingerprint are those of [Device].
	RelayPort   int    `db:"relay_port"`
	Fingerprint string `db:"fingerprint"`
}

// DueHosts returns at most limit tunnel servers whose public host is due to be checked, and makes them
// due again after about that time. No other call returns them before.
func (d *DB) DueHosts(ctx context.Context, limit int, again time.Duration) ([]HostCheck, error) {
	var checks []HostCheck
	err := d.devices.SelectContext(ctx, &checks,
		`WITH due AS (
			SELECT id, host_due IS NULL AS called FROM devices
			WHERE kind = 'server' AND approved_at IS NOT NULL AND (host_due IS NULL OR host_due <= now())
			ORDER BY host_due NULLS FIRST LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
		UPDATE devices d SET host_due = now() + $2 * (0.9 + 0.2 * random()) * interval '1 second'
		FROM due WHERE d.id = due.id
		RETURNING d.id, d.name, due.called, d.called_from, d.relay_port, d.fingerprint, `+hostColumns,
		limit, again.Seconds())
	return checks, wrap(err, "hosts to check")
}

// MoveGuess changes the guessed public host of a tunnel server, and notifies it and its clients. It
// returns [ErrConflict] if the host is no longer from, or no longer a guess.
func (d *DB) MoveGuess(ctx context.Context, id uuid.UUID, from, to string) error {
	moved, err := d.changeHost(ctx, id,
		`UPDATE devices d SET public_host = $3, guessed_host = $3
		WHERE d.id = $1 AND d.public_host = $2 AND `+hostGuessed, id, from, to)
	if err == nil && !moved {
		err = ErrConflict
	}
	return wrap(err, "move tunnel server %s to another host", id)
}

// SaveAddresses stores the addresses of the name that is the public host of a tunnel server. It notifies
// the tunnel server and its clients if they have changed, and ignores a name that is no longer the host.
func (d *DB) SaveAddresses(ctx context.Context, id uuid.UUID, host string, addresses Addresses) error {
	_, err := d.changeHost(ctx, id,
		`UPDATE devices d SET resolved_host = $2, public_addresses = $3, unresolved_since = NULL
		WHERE d.id = $1 AND d.public_host = $2
			AND (d.resolved_host <> $2 OR d.public_addresses <> $3 OR d.unresolved_since IS NOT NULL)`,
		id, host, addresses)
	return wrap(err, "save addresses of tunnel server %s", id)
}

// SaveUnresolved records that the name that is the public host of a tunnel server does not exist, and
// notifies the tunnel server. The last addresses of the name stay. It ignores a name that is no longer
// the host.
func (d *DB) SaveUnresolved(ctx context.Context, id uuid.UUID, host string) error {
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx,
			`UPDATE devices d SET resolved_host = $2,
				public_addresses = CASE WHEN d.resolved_host = $2 THEN d.public_addresses ELSE '' END,
				unresolved_since = coalesce(CASE WHEN d.resolved_host = $2 THEN d.unresolved_since END, now())
			WHERE d.id = $1 AND d.public_host = $2`, id, host)
		if err != nil {
			return err
		}
		return notify(ctx, tx, id)
	})
	return wrap(err, "save missing name of tunnel server %s", id)
}

// changeHost runs an update of a tunnel server and reports whether it found the row, in which case it
// notifies the tunnel server and its clients.
func (d *DB) changeHost(ctx context.Context, id uuid.UUID, update string, args ...any) (changed bool, err error) {
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		result, err := tx.ExecContext(ctx, update, args...)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if changed = rows > 0; !changed {
			return nil
		}
		return notifyHost(ctx, tx, id)
	})
	return changed, err
}

// notifyHost notifies a tunnel server and its clients that something about its public host has changed.
func notifyHost(ctx context.Context, tx *sqlx.Tx, id uuid.UUID) error {
	if err := notifyClientsOf(ctx, tx, id); err != nil {
		return err
	}
	return notify(ctx, tx, id)
}

// ServerHost is where players and agents reach a tunnel server.
type ServerHost struct {
	Name       string `db:"name"`
	PublicHost string `db:"public_host"`
}

// PublicHosts returns the public hosts of the approved tunnel servers, sorted by name. It reads tunnel
// servers only, of which there are few.
func (d *DB) PublicHosts(ctx context.Context) ([]ServerHost, error) {
	var hosts []ServerHost
	err := d.requests.SelectContext(ctx, &hosts,
		`SELECT name, public_host FROM devices
		WHERE kind = 'server' AND approved_at IS NOT NULL AND public_host <> '' ORDER BY name, id`)
	return hosts, wrap(err, "public hosts")
}
