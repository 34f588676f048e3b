package db

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// loadAge is the age of the counts of what a tunnel server carries now. It reports them every ten seconds.
const loadAge = 30 * time.Second

// ServerLoad is what a tunnel server has and carries.
type ServerLoad struct {
	ServerID uuid.UUID `db:"id"`
	// Allocations are those whose port it has, of Clients tunnel clients. Closing are ports of allocations that have
	// moved away, which it keeps for their last players.
	Allocations int `db:"allocations"`
	Clients     int `db:"clients"`
	Closing     int `db:"closing"`
	// DownloadRate is in bytes a second from games to players, and UploadRate from players to games.
	DownloadRate int64 `db:"download_rate"`
	UploadRate   int64 `db:"upload_rate"`
	// DrainUntil and DrainMove are those of [Device]. DrainTotal is how many allocations it had when the drain began,
	// of which DrainLeft have not moved away or, if they do not move, still have players.
	DrainUntil *time.Time `db:"drain_until"`
	DrainMove  bool       `db:"drain_move"`
	DrainTotal int        `db:"drain_total"`
	DrainLeft  int        `db:"drain_left"`
}

// serverLoadsQuery counts each table once, however many tunnel servers there are.
const serverLoadsQuery = `WITH held AS (
		SELECT server_id, device_id, count(*) FILTER (WHERE retires IS NULL) AS allocations,
			count(*) FILTER (WHERE retires IS NOT NULL) AS closing, count(*) FILTER (WHERE retires IS NULL AND NOT drained) AS undrained
		FROM allocations GROUP BY server_id, device_id),
	had AS (
		SELECT server_id, sum(allocations) AS allocations, sum(closing) AS closing, sum(undrained) AS undrained,
			count(*) FILTER (WHERE allocations > 0) AS clients
		FROM held GROUP BY server_id),
	carried AS (
		SELECT server_id, sum(download_bytes::float8 / greatest(seconds, 1)) AS download, sum(upload_bytes::float8 / greatest(seconds, 1)) AS upload
		FROM usage_now WHERE reported_at > now() - $1 * interval '1 second' GROUP BY server_id),
	loads AS (
		SELECT d.id, d.drain_until, d.drain_move, d.drain_total, coalesce(h.allocations, 0)::integer AS allocations,
			coalesce(h.clients, 0)::integer AS clients, coalesce(h.closing, 0)::integer AS closing,
			coalesce(c.download, 0)::bigint AS download_rate, coalesce(c.upload, 0)::bigint AS upload_rate,
			CASE WHEN d.drain_until IS NULL THEN 0 WHEN d.drain_move THEN coalesce(h.allocations, 0)
				ELSE coalesce(h.undrained, 0) END::integer AS drain_left
		FROM devices d LEFT JOIN had h ON h.server_id = d.id LEFT JOIN carried c ON c.server_id = d.id
		WHERE d.kind = 'server' AND d.approved_at IS NOT NULL)
	SELECT id, drain_until, drain_move, greatest(drain_total, drain_left) AS drain_total, allocations, clients, closing,
		download_rate, upload_rate, drain_left
	FROM loads ORDER BY id`

// ServerLoads returns the load of all approved tunnel servers, by id.
func (d *DB) ServerLoads(ctx context.Context) ([]ServerLoad, error) {
	var loads []ServerLoad
	err := d.requests.SelectContext(ctx, &loads, serverLoadsQuery, loadAge.Seconds())
	return loads, wrap(err, "load of tunnel servers")
}
