package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// UsageRetention is for how long usage is kept, in days of which each is at least 1.
type UsageRetention struct {
	Minutes int `db:"usage_minutes_days"`
	Hours   int `db:"usage_hours_days"`
	Days    int `db:"usage_days_days"`
}

const usageRetentionColumns = `usage_minutes_days, usage_hours_days, usage_days_days`

// UsageRetentionPatch changes what is not nil.
type UsageRetentionPatch struct{ Minutes, Hours, Days *int }

// PruneUsage deletes at most a batch of each of the counts that have been kept for long enough at a time, and what
// only they or reports that can no longer come need. It returns the number of rows that it has deleted.
func (d *DB) PruneUsage(ctx context.Context, now time.Time) (deleted int64, err error) {
	var keep UsageRetention
	if err := d.devices.GetContext(ctx, &keep, `SELECT `+usageRetentionColumns+` FROM settings`); err != nil {
		return 0, wrap(err, "prune usage")
	}
	for _, expired := range []struct {
		table, column string
		days          int
	}{
		{"usage_minutes", "at", keep.Minutes},
		{"usage_hours", "at", keep.Hours},
		{"usage_days", "at", keep.Days},
		{"usage_now", "reported_at", 1},
		// A tunnel server that comes back after longer has its reports counted, but perhaps twice the last one.
		{"usage_reports", "stored_at", reportMemory},
		{"usage_closed_ports", "closed_at", reportMemory},
	} {
		result, err := d.devices.ExecContext(ctx, fmt.Sprintf(
			`DELETE FROM %[1]s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %[1]s WHERE %[2]s < $1 LIMIT $2))`, expired.table, expired.column),
			stamp(now.AddDate(0, 0, -expired.days)), pruneUsageBatch)
		if err != nil {
			return deleted, wrap(err, "prune %s", expired.table)
		}
		n, err := result.RowsAffected()
		if err != nil {
			return deleted, wrap(err, "prune %s", expired.table)
		}
		deleted += n
	}
	return deleted, nil
}

const (
	// reportMemory is how long the numbers of reports and closed ports are remembered, in days.
	reportMemory = 31
	// pruneUsageBatch is how many rows of a table a call deletes. It takes less than a second.
	pruneUsageBatch = 20_000
)

// usageSubjectsLock is the advisory lock of subjects, "eclu" in ASCII: shared by a report from when it reads their ids
// until what it counts is stored, and taken alone to delete some.
const usageSubjectsLock = 0x65636c75

// pruneSubjectsBatch is how many subjects a call of [DB.PruneUsageSubjects] looks at.
const pruneSubjectsBatch = 10_000

// unusedSubject is the condition that nothing is counted of subject s any more, and that no newest report is of it. Each
// is one look into an index, or into a small table that is read once, and of most subjects the first one suffices.
const unusedSubject = `(SELECT true FROM usage_days u WHERE u.subject_id = s.id LIMIT 1) IS NULL
	AND (SELECT true FROM usage_hours u WHERE u.subject_id = s.id LIMIT 1) IS NULL
	AND (SELECT true FROM usage_minutes u WHERE u.subject_id = s.id LIMIT 1) IS NULL
	AND s.id NOT IN (SELECT n.subject_id FROM usage_now n)`

// PruneUsageSubjects looks at the next few thousand subjects after an id, in the order of their ids, and deletes those
// of which nothing is counted any more: see [DB.PruneUsage]. It returns where to go on, which is 0 at the end.
func (d *DB) PruneUsageSubjects(ctx context.Context, after int64) (next int64, err error) {
	var looked struct {
		Count  int           `db:"count"`
		Last   int64         `db:"last"`
		Unused pq.Int64Array `db:"unused"`
	}
	err = d.devices.GetContext(ctx, &looked,
		`SELECT count(*), coalesce(max(s.id), 0) AS last, array_agg(s.id) FILTER (WHERE `+unusedSubject+`) AS unused
		FROM (SELECT id FROM usage_subjects WHERE id > $1 ORDER BY id LIMIT $2) AS s`, after, pruneSubjectsBatch)
	if err != nil {
		return after, wrap(err, "look for unused subjects of usage")
	}
	if len(looked.Unused) > 0 {
		err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(usageSubjectsLock)); err != nil {
				return err
			}
			// A report may have counted something meanwhile.
			_, err := tx.ExecContext(ctx, `DELETE FROM usage_subjects s WHERE s.id = ANY ($1) AND `+unusedSubject, looked.Unused)
			return err
		})
		if err != nil {
			return after, wrap(err, "prune subjects of usage")
		}
	}
	if looked.Count < pruneSubjectsBatch {
		return 0, nil
	}
	return looked.Last, nil
}
