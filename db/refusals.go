package db

import (
	"context"
	"math"

	"github.com/google/uuid"
	"github.com/lib/pq"
)

// Refusals are counts of what the public port of an allocation has refused, by reason.
type Refusals struct {
	Players   map[string]int64 // TCP connections.
	Datagrams map[string]int64
}

// The kinds of refusals.
const (
	refusedPlayers   = "players"
	refusedDatagrams = "datagrams"
)

// NewRefusals returns Refusals of nothing.
func NewRefusals() Refusals {
	return Refusals{Players: map[string]int64{}, Datagrams: map[string]int64{}}
}

// Add adds what other has counted to r, whose maps must not be nil.
func (r Refusals) Add(other Refusals) {
	addCounts(r.Players, other.Players)
	addCounts(r.Datagrams, other.Datagrams)
}

func addCounts(counts, more map[string]int64) {
	for reason, n := range more {
		counts[reason] = SumCounts(counts[reason], n)
	}
}

// SumCounts returns the sum of two counts, or the largest count.
func SumCounts(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// PortRefusals are what a tunnel server has refused at the public port of an allocation.
type PortRefusals struct {
	AllocationID int64
	Port         int
	Refusals
}

// Refusals returns what the public port of an allocation has refused since it was opened: since the
// allocation has had it, on the tunnel server on which it is now. It returns zero counts for an allocation
// that does not exist.
func (d *DB) Refusals(ctx context.Context, allocationID int64) (Refusals, error) {
	var rows []struct {
		Kind   string `db:"kind"`
		Reason string `db:"reason"`
		Count  int64  `db:"count"`
	}
	err := d.requests.SelectContext(ctx, &rows,
		`SELECT kind, reason, count FROM refusals WHERE allocation_id = $1`, allocationID)
	refusals := NewRefusals()
	for _, row := range rows {
		if row.Kind == refusedPlayers {
			refusals.Players[row.Reason] = row.Count
		} else {
			refusals.Datagrams[row.Reason] = row.Count
		}
	}
	return refusals, wrap(err, "refusals of allocation %d", allocationID)
}

// AddRefusals adds what a tunnel server has refused to the counts of its allocations. It ignores
// allocations that are on another tunnel server or another port by now. Counts must not be negative; a
// sum stays at the largest that a bigint holds. Concurrent calls share a statement. After an error that
// hides whether the database has done it, a second call may count twice.
func (d *DB) AddRefusals(ctx context.Context, serverID uuid.UUID, refusals []PortRefusals) error {
	_, err := d.batches.refusals.Do(ctx, serverRefusals{serverID, refusals})
	return wrap(err, "add refusals of server %s", serverID)
}

// serverRefusals are what one tunnel server has refused.
type serverRefusals struct {
	server   uuid.UUID
	refusals []PortRefusals
}

// addRefusals adds what tunnel servers have refused.
func (d *DB) addRefusals(ctx context.Context, all []serverRefusals) error {
	type counter struct {
		server       uuid.UUID
		allocation   int64
		port         int
		kind, reason string
	}
	sums := map[counter]int64{}
	for _, of := range all {
		for _, r := range of.refusals {
			for kind, counts := range map[string]map[string]int64{refusedPlayers: r.Players, refusedDatagrams: r.Datagrams} {
				for reason, n := range counts {
					key := counter{of.server, r.AllocationID, r.Port, kind, reason}
					sums[key] = SumCounts(sums[key], n)
				}
			}
		}
	}
	servers, ids, ports := make([]uuid.UUID, 0, len(sums)), make([]int64, 0, len(sums)), make([]int64, 0, len(sums))
	kinds, reasons, counts := make([]string, 0, len(sums)), make([]string, 0, len(sums)), make([]int64, 0, len(sums))
	for of, n := range sums {
		if n == 0 {
			continue
		}
		servers, ids, ports = append(servers, of.server), append(ids, of.allocation), append(ports, int64(of.port))
		kinds, reasons, counts = append(kinds, of.kind), append(reasons, of.reason), append(counts, n)
	}
	if len(counts) == 0 {
		return nil
	}
	// Like every other, it locks allocations first, in the order of their ids: one that moves or is deleted
	// meanwhile is not counted for.
	_, err := d.devices.ExecContext(ctx,
		`WITH refused AS (
			SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[])
				AS r (server_id, id, port, kind, reason, count)),
		locked AS (
			SELECT a.id, a.server_id, a.port FROM allocations a
			WHERE a.id = ANY ($2::bigint[]) AND a.retires IS NULL ORDER BY a.id FOR KEY SHARE OF a)
		INSERT INTO refusals AS t (allocation_id, kind, reason, count)
		SELECT l.id, r.kind, r.reason, r.count
		FROM locked l JOIN refused r ON r.id = l.id AND r.server_id = l.server_id AND r.port = l.port
		ORDER BY l.id, r.kind, r.reason
		ON CONFLICT (allocation_id, kind, reason) DO UPDATE SET count =
			CASE WHEN t.count > 9223372036854775807 - excluded.count THEN 9223372036854775807
				ELSE t.count + excluded.count END`,
		uuidArray(servers), pq.Array(ids), pq.Array(ports), pq.Array(kinds), pq.Array(reasons), pq.Array(counts))
	return err
}
