package db

import (
	"context"
	"net/netip"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// checkLoop returns [ErrLoop] if the local target of one of these allocations, which have been
// written, is its own public port, or the public port of another allocation whose local target leads
// back in the same way. Only what the rows say is known: a loop through an address that they do not
// have is left to the tunnel client and server.
func checkLoop(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	var rows []struct {
		ID        int64  `db:"id"`
		LocalHost string `db:"local_host"`
	}
	if err := tx.SelectContext(ctx, &rows, `SELECT id, local_host FROM allocations WHERE id = ANY ($1)`, pq.Array(ids)); err != nil {
		return err
	}
	ids = nil
	for _, row := range rows {
		// Of the agent's own machine: the agent finds such a loop itself.
		if address, err := netip.ParseAddr(row.LocalHost); err != nil || !address.Unmap().IsLoopback() {
			ids = append(ids, row.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var loop bool
	err := tx.GetContext(ctx, &loop,
		`WITH RECURSIVE chain AS (
			SELECT a.id AS first, a.id, a.protocol, a.local_host, a.local_port, false AS reached
			FROM allocations a WHERE a.id = ANY ($1)
			UNION -- Not ALL: it ends where a chain meets itself.
			SELECT c.first, a.id, a.protocol, a.local_host, a.local_port, true
			FROM chain c
			JOIN devices d ON d.kind = 'server' AND (lower(rtrim(d.public_host, '.')) = lower(rtrim(c.local_host, '.'))
				OR d.resolved_host = d.public_host AND lower(c.local_host) = ANY (string_to_array(d.public_addresses, ' ')))
			JOIN allocations a ON a.server_id = d.id AND a.port = c.local_port AND a.protocol = c.protocol
		)
		SELECT EXISTS (SELECT FROM chain WHERE reached AND id = first)`, pq.Array(ids))
	if err != nil {
		return err
	}
	if loop {
		return ErrLoop
	}
	return nil
}
