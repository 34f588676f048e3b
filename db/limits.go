package db

import (
	"context"
	"time"
)

// Attempt is an attempt that was counted.
type Attempt struct {
	// RetryAfter is 0 if the attempt is allowed, otherwise the time until the window ends.
	RetryAfter time.Duration
	Left       int           // How many more attempts the window allows.
	Resets     time.Duration // The time until the window ends.
}

// Take counts one attempt under key. The first attempt opens a window, within which up to limit
// attempts are allowed. The count is shared by all replicas.
func (d *DB) Take(ctx context.Context, key string, limit int, window time.Duration, now time.Time) (Attempt, error) {
	now = stamp(now)
	var row struct {
		Hits     int64     `db:"hits"`
		ResetsAt time.Time `db:"resets_at"`
	}
	// Rejected attempts leave the count at one above the limit, which distinguishes them from
	// allowed ones and keeps the count from overflowing.
	err := d.requests.GetContext(ctx, &row,
		`INSERT INTO rate_limits AS l (key, hits, resets_at) VALUES ($1, 1, $2)
		ON CONFLICT (key) DO UPDATE SET
			hits = CASE WHEN l.resets_at <= $3 THEN 1 ELSE least(l.hits, $4) + 1 END,
			resets_at = CASE WHEN l.resets_at <= $3 THEN excluded.resets_at ELSE l.resets_at END
		RETURNING hits, resets_at`,
		key, stamp(now.Add(window)), now, int64(limit))
	if err != nil {
		return Attempt{}, wrap(err, "count attempt")
	}
	attempt := Attempt{Left: max(0, limit-int(row.Hits)), Resets: row.ResetsAt.Sub(now)}
	if row.Hits > int64(limit) {
		attempt.RetryAfter = attempt.Resets
	}
	return attempt, nil
}

// Reset deletes the attempts under key.
func (d *DB) Reset(ctx context.Context, key string) error {
	_, err := d.requests.ExecContext(ctx, `DELETE FROM rate_limits WHERE key = $1`, key)
	return wrap(err, "reset attempts")
}

// Refund uncounts one attempt under key that [DB.Take] allowed. The others stay counted.
func (d *DB) Refund(ctx context.Context, key string) error {
	_, err := d.requests.ExecContext(ctx, `UPDATE rate_limits SET hits = hits - 1 WHERE key = $1 AND hits > 0`, key)
	return wrap(err, "refund attempt")
}
