package db

import (
	"context"
	"time"
)

// Hit counts one attempt under key. The first opens a window; up to limit are allowed until it
// ends. It returns 0 when this one is allowed and counted, otherwise how long until the window
// ends. All replicas count together.
func (d *DB) Hit(ctx context.Context, key string, limit int, window time.Duration, now time.Time) (retryAfter time.Duration, err error) {
	now = stamp(now)
	var row struct {
		Hits     int64     `db:"hits"`
		ResetsAt time.Time `db:"resets_at"`
	}
	// Refused attempts stay one above the limit, so that Hits tells allowed from refused and the
	// number cannot overflow.
	err = d.pool.GetContext(ctx, &row,
		`INSERT INTO rate_limits AS l (key, hits, resets_at) VALUES ($1, 1, $2)
		ON CONFLICT (key) DO UPDATE SET
			hits = CASE WHEN l.resets_at <= $3 THEN 1 ELSE least(l.hits, $4) + 1 END,
			resets_at = CASE WHEN l.resets_at <= $3 THEN excluded.resets_at ELSE l.resets_at END
		RETURNING hits, resets_at`,
		key, stamp(now.Add(window)), now, int64(limit))
	if err != nil {
		return 0, wrap(err, "count attempt")
	}
	if row.Hits <= int64(limit) {
		return 0, nil
	}
	return row.ResetsAt.Sub(now), nil
}

// Forgive forgets the attempts under key.
func (d *DB) Forgive(ctx context.Context, key string) error {
	_, err := d.pool.ExecContext(ctx, `DELETE FROM rate_limits WHERE key = $1`, key)
	return wrap(err, "forgive attempts")
}

// TakeBack takes back one attempt under key that [DB.Hit] allowed; the others stay counted.
func (d *DB) TakeBack(ctx context.Context, key string) error {
	_, err := d.pool.ExecContext(ctx, `UPDATE rate_limits SET hits = hits - 1 WHERE key = $1 AND hits > 0`, key)
	return wrap(err, "take back attempt")
}
