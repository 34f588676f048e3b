package db

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// OpenedConnection is a connection that a tunnel server reports. Its other fields are those of [Connection].
type OpenedConnection struct {
	ConnectionCounters
	AllocationID int64
	Source       netip.Addr
	SourcePort   int
	Since        time.Time // One in the future is now.
}

// ConnectionCounters are what a connection has carried, and its round trips. The fields are those of [Connection].
type ConnectionCounters struct {
	Number                           int64
	DownloadBytes, UploadBytes       int64
	PlayerRoundTrip, TunnelRoundTrip *float32
}

// ConnectionChanges are what a tunnel server has reported since the last changes. A connection is in one list only.
type ConnectionChanges struct {
	// Generation is that of the connection of the tunnel server; see [DB.Connect]. Changes of an older one have no effect.
	Generation int64
	Opened     []OpenedConnection
	Updated    []ConnectionCounters
	Closed     []ConnectionCounters
	// Complete means that connections which were not in Opened since the generation began have ended.
	Complete bool
}

// SaveConnections stores what a tunnel server has reported. It ignores connections to allocations that do not exist,
// and whether it had these allocations is up to the caller. Concurrent calls share statements. Calls with the same
// changes have no further effect.
func (d *DB) SaveConnections(ctx context.Context, serverID uuid.UUID, changes ConnectionChanges) error {
	_, err := d.batches.connections.Do(ctx, serverConnections{serverID, changes})
	return wrap(err, "save connections of server %s", serverID)
}

// serverConnections are the changes of one tunnel server.
type serverConnections struct {
	server uuid.UUID
	ConnectionChanges
}

func (s serverConnections) rows() int { return len(s.Opened) + len(s.Updated) + len(s.Closed) }

// counterColumns are columns of ConnectionCounters.
type counterColumns struct {
	servers              []uuid.UUID
	generations, numbers []int64
	downloads, uploads   []int64
	playerRTTs, rtts     []*float32
}

func (c *counterColumns) add(of serverConnections, n ConnectionCounters) {
	c.servers, c.generations, c.numbers = append(c.servers, of.server), append(c.generations, of.Generation), append(c.numbers, n.Number)
	c.downloads, c.uploads = append(c.downloads, n.DownloadBytes), append(c.uploads, n.UploadBytes)
	c.playerRTTs, c.rtts = append(c.playerRTTs, n.PlayerRoundTrip), append(c.rtts, n.TunnelRoundTrip)
}

// args returns the arguments of the parameters $1 to $7.
func (c *counterColumns) args(more ...any) []any {
	return append([]any{
		uuidArray(c.servers), pq.Array(c.generations), pq.Array(c.numbers), pq.Array(c.downloads), pq.Array(c.uploads),
		pq.Array(c.playerRTTs), pq.Array(c.rtts),
	}, more...)
}

// saveConnections stores the changes of tunnel servers.
func (d *DB) saveConnections(ctx context.Context, all []serverConnections) error {
	return d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		for _, save := range []func(context.Context, *sqlx.Tx, []serverConnections) error{
			lockConnections, saveOpened, saveUpdated, deleteClosed, completeConnections,
		} {
			if err := save(ctx, tx, all); err != nil {
				return err
			}
		}
		return nil
	})
}

// lockConnections locks what the other statements insert, replace or delete, before any of them: tunnel servers, then
// allocations, then connections, each in the order of their ids. Whoever deletes a device or an allocation has its row
// before its connections, so that neither waits for the other with something that the other needs. Counts need no locks
// of their own, see saveUpdated.
func lockConnections(ctx context.Context, tx *sqlx.Tx, all []serverConnections) error {
	var servers, completeServers, ofServers []uuid.UUID
	var generations, numbers, allocations []int64
	for _, of := range all {
		if len(of.Opened)+len(of.Closed) == 0 && !of.Complete {
			continue
		}
		servers = append(servers, of.server)
		if of.Complete {
			completeServers, generations = append(completeServers, of.server), append(generations, of.Generation)
		}
		for _, o := range of.Opened {
			ofServers, numbers, allocations = append(ofServers, of.server), append(numbers, o.Number), append(allocations, o.AllocationID)
		}
		for _, n := range of.Closed {
			ofServers, numbers = append(ofServers, of.server), append(numbers, n.Number)
		}
	}
	if len(servers) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT FROM devices WHERE id = ANY ($1::uuid[]) ORDER BY id FOR KEY SHARE`, uuidArray(servers))
	if err != nil {
		return err
	}
	const changed = `SELECT c.server_id, c.number, c.allocation_id FROM unnest($1::uuid[], $2::bigint[]) AS n (server_id, number)
			JOIN connections c ON c.server_id = n.server_id AND c.number = n.number
		UNION SELECT c.server_id, c.number, c.allocation_id FROM unnest($3::uuid[], $4::bigint[]) AS l (server_id, generation)
			JOIN connections c ON c.server_id = l.server_id AND c.generation < l.generation`
	args := []any{uuidArray(ofServers), pq.Array(numbers), uuidArray(completeServers), pq.Array(generations)}
	_, err = tx.ExecContext(ctx, `SELECT FROM allocations
		WHERE id IN (SELECT allocation_id FROM (`+changed+`) AS c UNION SELECT unnest($5::bigint[])) ORDER BY id FOR KEY SHARE`,
		append(args, pq.Array(allocations))...)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `SELECT FROM connections WHERE (server_id, number) IN (SELECT server_id, number FROM (`+changed+`) AS c)
		ORDER BY server_id, number FOR UPDATE`, args...)
	return err
}

func saveOpened(ctx context.Context, tx *sqlx.Tx, all []serverConnections) error {
	var counters counterColumns
	var allocations, ports []int64
	var sources []string
	var since []time.Time
	for _, of := range all {
		for _, o := range of.Opened {
			counters.add(of, o.ConnectionCounters)
			allocations, ports = append(allocations, o.AllocationID), append(ports, int64(o.SourcePort))
			sources, since = append(sources, o.Source.Unmap().WithZone("").String()), append(since, o.Since)
		}
	}
	if len(sources) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`WITH opened AS (
			SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::real[], $7::real[],
					$8::bigint[], $9::bigint[], $10::inet[], $11::timestamptz[])
				AS o (server_id, generation, number, download_bytes, upload_bytes, player_rtt, tunnel_rtt, allocation_id, source_port, source, since))
		INSERT INTO connections AS c (server_id, generation, number, download_bytes, upload_bytes, player_rtt, tunnel_rtt,
			allocation_id, source_port, source, since)
		SELECT DISTINCT ON (o.server_id, o.number) o.server_id, o.generation, o.number, o.download_bytes, o.upload_bytes, o.player_rtt, o.tunnel_rtt,
			o.allocation_id, o.source_port, o.source, greatest(least(o.since, now()), '2000-01-01')
		FROM opened o JOIN allocations a ON a.id = o.allocation_id JOIN devices s ON s.id = o.server_id AND s.generation = o.generation
		ORDER BY o.server_id, o.number
		ON CONFLICT (server_id, number) DO UPDATE SET generation = excluded.generation, download_bytes = excluded.download_bytes,
			upload_bytes = excluded.upload_bytes, player_rtt = excluded.player_rtt, tunnel_rtt = excluded.tunnel_rtt, updated_at = now()`,
		counters.args(pq.Array(allocations), pq.Array(ports), pq.Array(sources), pq.Array(since))...)
	return err
}

// saveUpdated stores counts, the last ones too of connections that have ended. It waits for no row, except for those
// that lockConnections has locked: whoever has another one is deleting it or cutting it off, and the next counts follow.
func saveUpdated(ctx context.Context, tx *sqlx.Tx, all []serverConnections) error {
	var counters counterColumns
	for _, of := range all {
		for _, n := range slices.Concat(of.Updated, of.Closed) {
			counters.add(of, n)
		}
	}
	if len(counters.numbers) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`WITH updated AS (
			SELECT u.* FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::real[], $7::real[])
				AS u (server_id, generation, number, download_bytes, upload_bytes, player_rtt, tunnel_rtt)
			JOIN connections c ON c.server_id = u.server_id AND c.number = u.number AND c.generation = u.generation
			ORDER BY u.server_id, u.number FOR NO KEY UPDATE OF c SKIP LOCKED)
		UPDATE connections c SET download_bytes = u.download_bytes, upload_bytes = u.upload_bytes,
			player_rtt = u.player_rtt, tunnel_rtt = u.tunnel_rtt, updated_at = now()
		FROM updated u WHERE c.server_id = u.server_id AND c.number = u.number`, counters.args()...)
	return err
}

// deleteClosed deletes connections that have ended, after saveUpdated.
func deleteClosed(ctx context.Context, tx *sqlx.Tx, all []serverConnections) error {
	var servers []uuid.UUID
	var generations, numbers []int64
	for _, of := range all {
		for _, n := range of.Closed {
			servers, generations, numbers = append(servers, of.server), append(generations, of.Generation), append(numbers, n.Number)
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`WITH closed AS (
			SELECT c.server_id, c.number FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS e (server_id, generation, number)
			JOIN connections c ON c.server_id = e.server_id AND c.number = e.number AND c.generation <= e.generation
			ORDER BY c.server_id, c.number FOR UPDATE OF c)
		DELETE FROM connections c USING closed e WHERE c.server_id = e.server_id AND c.number = e.number`,
		uuidArray(servers), pq.Array(generations), pq.Array(numbers))
	return err
}

func completeConnections(ctx context.Context, tx *sqlx.Tx, all []serverConnections) error {
	var servers []uuid.UUID
	var generations []int64
	for _, of := range all {
		if of.Complete {
			servers, generations = append(servers, of.server), append(generations, of.Generation)
		}
	}
	if len(servers) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx,
		`WITH ended AS (
			SELECT c.server_id, c.number FROM unnest($1::uuid[], $2::bigint[]) AS l (server_id, generation)
			JOIN connections c ON c.server_id = l.server_id AND c.generation < l.generation
			ORDER BY c.server_id, c.number FOR UPDATE OF c)
		DELETE FROM connections c USING ended e WHERE c.server_id = e.server_id AND c.number = e.number`,
		uuidArray(servers), pq.Array(generations))
	return err
}
