package db

import (
	"context"
	"database/sql"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

const (
	// MaxKeptOut is how many sources an allocation may keep out at a time.
	MaxKeptOut = 1000
	// maxKeptOutByDevice is how many the allocations of a device may keep out together: tunnel servers are sent
	// all of them.
	maxKeptOutByDevice = 5000
)

// KeptOut is a source that may not join an allocation until a time.
type KeptOut struct {
	AllocationID int64     `db:"allocation_id"`
	Source       string    `db:"source"` // An address of IPv4, or a /64 of IPv6.
	Until        time.Time `db:"until"`
	CreatedAt    time.Time `db:"created_at"`
}

// An address of IPv4 is text without its length.
const keptOutColumns = `k.allocation_id, CASE family(k.source) WHEN 4 THEN host(k.source) ELSE k.source::text END AS source, k.until, k.created_at`

// SourceOf returns the source that an address or prefix of a player belongs to: an address of IPv4, or a /64 of IPv6.
func SourceOf(player netip.Prefix) netip.Prefix {
	address := player.Addr().Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// KeptOut lists the sources that an allocation of a device in scope keeps out, by their ends.
func (d *DB) KeptOut(ctx context.Context, scope Scope, allocationID int64) ([]KeptOut, error) {
	kept := []KeptOut{}
	err := d.requests.snapshot(ctx, func(tx *sqlx.Tx) error {
		var seen bool
		if err := tx.GetContext(ctx, &seen, `SELECT true FROM `+allocationRow, scope.args(allocationID)...); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &kept, `SELECT `+keptOutColumns+` FROM kept_out k
			WHERE k.allocation_id = $1 AND k.until > now() ORDER BY k.until, k.source LIMIT $2`, allocationID, MaxKeptOut)
	})
	return kept, wrap(err, "sources kept out of allocation %d", allocationID)
}

// Readmit ends what keeps a source out of an allocation of a device that the scope manages, and notifies its tunnel
// servers. It returns [ErrNotFound] if the source is not kept out.
func (d *DB) Readmit(ctx context.Context, scope Scope, allocationID int64, source netip.Prefix) error {
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		var locked int64
		err := tx.GetContext(ctx, &locked, `SELECT a.id FROM allocations a JOIN devices d ON d.id = a.device_id
			WHERE a.id = $4 AND a.retires IS NULL AND `+manageable+` FOR KEY SHARE OF a`, scope.args(allocationID)...)
		if err := scope.refused(ctx, tx, err, allocationRow, allocationID); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `DELETE FROM kept_out WHERE allocation_id = $1 AND source = $2::cidr AND until > now()`,
			allocationID, SourceOf(source).String())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			if err == nil {
				err = sql.ErrNoRows
			}
			return err
		}
		servers, err := serversOf(ctx, tx, allocationID, nil)
		if err != nil {
			return err
		}
		return notify(ctx, tx, servers...)
	})
	return wrap(err, "readmit a source to allocation %d", allocationID)
}

// keepOutOf keeps the source of a player out of an allocation, whose row is locked.
func keepOutOf(ctx context.Context, tx *sqlx.Tx, allocationID int64, player string, keepOut time.Duration) error {
	address, err := netip.ParseAddr(player)
	if err != nil {
		return err
	}
	source := SourceOf(netip.PrefixFrom(address, address.BitLen())).String()
	// Those that are being kept out at the same time may be a few more.
	result, err := tx.ExecContext(ctx, `INSERT INTO kept_out AS k (allocation_id, source, until)
		SELECT $1, $2::cidr, now() + $3 * interval '1 second'
		WHERE (SELECT count(*) FROM kept_out o WHERE o.allocation_id = $1 AND o.until > now() AND o.source <> $2::cidr) < $4
			AND (SELECT count(*) FROM kept_out o JOIN allocations b ON b.id = o.allocation_id
				WHERE b.device_id = (SELECT a.device_id FROM allocations a WHERE a.id = $1) AND o.until > now()
					AND (o.allocation_id, o.source) <> ($1, $2::cidr)) < $5
		ON CONFLICT (allocation_id, source) DO UPDATE SET until = greatest(k.until, excluded.until)`,
		allocationID, source, keepOut.Seconds(), MaxKeptOut, maxKeptOutByDevice)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrTooMany
}

// serversOf adds the tunnel servers of an allocation and of its old ports.
func serversOf(ctx context.Context, tx *sqlx.Tx, allocationID int64, servers []uuid.UUID) ([]uuid.UUID, error) {
	var more []uuid.UUID
	err := tx.SelectContext(ctx, &more, `SELECT server_id FROM allocations WHERE id = $1 OR retires = $1`, allocationID)
	return append(servers, more...), err
}

// keptOutBy returns what the allocations of a tunnel server keep out, by allocation.
func keptOutBy(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID) (map[int64][]KeptOut, error) {
	var rows []KeptOut
	err := tx.SelectContext(ctx, &rows, `SELECT `+keptOutColumns+` FROM kept_out k
		WHERE k.until > now() AND k.allocation_id IN (SELECT coalesce(a.retires, a.id) FROM allocations a WHERE a.server_id = $1)
		ORDER BY k.allocation_id, k.source`, serverID)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	kept := map[int64][]KeptOut{}
	for _, row := range rows {
		kept[row.AllocationID] = append(kept[row.AllocationID], row)
	}
	return kept, nil
}
