package db

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// UsageCounts are what has been carried in a time. Download is from the game to players, and upload from
// players to the game. Bytes are those of payloads.
type UsageCounts struct {
	DownloadBytes     int64 `db:"download_bytes"`
	UploadBytes       int64 `db:"upload_bytes"`
	DownloadDatagrams int64 `db:"download_datagrams"`
	UploadDatagrams   int64 `db:"upload_datagrams"`
	Joins             int64 `db:"joins"`
}

// AllocationUsage is what an allocation has carried in a time.
type AllocationUsage struct {
	AllocationID int64
	Players      int // At the end,
	PeakPlayers  int // and the most at any moment.
	UsageCounts
}

// UsageReport is what a tunnel server has counted in a time.
type UsageReport struct {
	// Epoch and Sequence identify the report. Those of an epoch come in the order of their sequence.
	Epoch    uuid.UUID
	Sequence int64
	// Ended is when the time ended, and Seconds its length.
	Ended   time.Time
	Seconds int
	// Allocations are the counts, of each allocation once. None must be negative.
	Allocations []AllocationUsage
}

// liveUsageAge is the age of the counts of which subscribers are told.
const liveUsageAge = time.Minute

// AddUsage adds a report of a tunnel server to the usage of the owners of its allocations, unless it was added
// before. It ignores allocations that are and were not on that tunnel server. It notifies the subscribers of live
// usage of every replica.
func (d *DB) AddUsage(ctx context.Context, serverID uuid.UUID, report UsageReport) error {
	err := d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		var added bool
		err := tx.GetContext(ctx, &added,
			`INSERT INTO usage_reports AS r (server_id, epoch, sequence) VALUES ($1, $2, $3)
			ON CONFLICT (server_id, epoch) DO UPDATE SET sequence = excluded.sequence, stored_at = now()
				WHERE r.sequence < excluded.sequence
			RETURNING true`, serverID, report.Epoch, report.Sequence)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock_shared($1)`, int64(usageSubjectsLock)); err != nil {
			return err
		}
		subjects, err := usageSubjects(ctx, tx, serverID, report)
		if err != nil || len(subjects) == 0 {
			return err
		}
		if err := addUsage(ctx, tx, serverID, report, subjects); err != nil {
			return err
		}
		if time.Since(report.Ended) > liveUsageAge {
			return nil
		}
		_, err = tx.ExecContext(ctx, `SELECT pg_notify($1, $2)`, liveChannel, TopicUsage+serverID.String())
		return err
	})
	return wrap(err, "add usage of server %s", serverID)
}

// usageSubject is whose usage that of an allocation is.
type usageSubject struct {
	ID             *int64    `db:"id"` // nil: it has no row yet.
	AllocationID   int64     `db:"allocation_id"`
	DeviceID       uuid.UUID `db:"device_id"`
	OwnerID        int64     `db:"owner_id"`
	OrganisationID int64     `db:"organisation_id"`
}

// usageSubjects returns the subjects of the allocations of a report.
func usageSubjects(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID, report UsageReport) ([]usageSubject, error) {
	ids := make([]int64, len(report.Allocations))
	for i, of := range report.Allocations {
		ids[i] = of.AllocationID
	}
	var subjects []usageSubject
	err := tx.SelectContext(ctx, &subjects,
		`WITH reported AS MATERIALIZED (SELECT DISTINCT unnest($2::bigint[]) AS id),
		owned AS (
			SELECT r.id AS allocation_id, d.id AS device_id, coalesce(d.owner_id, 0) AS owner_id, coalesce(d.organisation_id, 0) AS organisation_id
			FROM reported r
			JOIN LATERAL (
				(SELECT a.device_id FROM allocations a WHERE a.id = r.id AND a.server_id = $1)
				UNION ALL (SELECT a.device_id FROM allocations a WHERE a.retires = r.id AND a.server_id = $1) LIMIT 1) a ON true
			JOIN devices d ON d.id = a.device_id),
		counted AS (
			SELECT * FROM owned
			UNION ALL SELECT c.allocation_id, c.device_id, c.owner_id, c.organisation_id
			FROM usage_closed_ports c JOIN reported r ON r.id = c.allocation_id
			WHERE c.server_id = $1 AND c.allocation_id NOT IN (SELECT allocation_id FROM owned))
		SELECT s.id, c.allocation_id, c.device_id, c.owner_id, c.organisation_id
		FROM counted c LEFT JOIN usage_subjects s USING (allocation_id, device_id, owner_id, organisation_id)`,
		serverID, pq.Array(ids))
	if err != nil {
		return nil, err
	}
	return withUsageSubjects(ctx, tx, subjects)
}

// withUsageSubjects returns the subjects, all with a row.
func withUsageSubjects(ctx context.Context, tx *sqlx.Tx, subjects []usageSubject) ([]usageSubject, error) {
	found := make([]usageSubject, 0, len(subjects))
	var allocations, owners, organisations []int64
	var devices []uuid.UUID
	for _, s := range subjects {
		if s.ID != nil {
			found = append(found, s)
			continue
		}
		allocations, devices = append(allocations, s.AllocationID), append(devices, s.DeviceID)
		owners, organisations = append(owners, s.OwnerID), append(organisations, s.OrganisationID)
	}
	if len(allocations) == 0 {
		return found, nil
	}
	var made []usageSubject
	// Somebody else may have made one meanwhile.
	err := tx.SelectContext(ctx, &made,
		`INSERT INTO usage_subjects (allocation_id, device_id, owner_id, organisation_id)
		SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[]) AS s (allocation_id, device_id, owner_id, organisation_id)
		ORDER BY 1, 2, 3, 4
		ON CONFLICT ON CONSTRAINT usage_subjects_key DO UPDATE SET allocation_id = excluded.allocation_id
		RETURNING id, allocation_id, device_id, owner_id, organisation_id`,
		pq.Array(allocations), uuidArray(devices), pq.Array(owners), pq.Array(organisations))
	return append(found, made...), err
}

// The sums of a report that are kept beside the counts of its allocations: those of an owner, and of all. They stand in
// place of an allocation, and their tunnel server in place of the device, so that much usage is the sum of few rows.
const (
	ownerUsage = 0
	siteUsage  = -1
)

// usageSums returns the sums of a report, by subjects that have no id yet.
func usageSums(serverID uuid.UUID, report UsageReport, subjects map[int64]usageSubject) map[usageSubject]AllocationUsage {
	sums := map[usageSubject]AllocationUsage{}
	for _, of := range report.Allocations {
		s, ok := subjects[of.AllocationID]
		if !ok {
			continue
		}
		for _, key := range []usageSubject{
			{AllocationID: ownerUsage, DeviceID: serverID, OwnerID: s.OwnerID, OrganisationID: s.OrganisationID},
			{AllocationID: siteUsage, DeviceID: serverID},
		} {
			sums[key] = sums[key].plus(of)
		}
	}
	return sums
}

// plus returns the sum of two counts of the same time.
func (a AllocationUsage) plus(b AllocationUsage) AllocationUsage {
	return AllocationUsage{
		PeakPlayers: min(a.PeakPlayers+b.PeakPlayers, math.MaxInt32),
		UsageCounts: UsageCounts{
			DownloadBytes: SumCounts(a.DownloadBytes, b.DownloadBytes), UploadBytes: SumCounts(a.UploadBytes, b.UploadBytes),
			DownloadDatagrams: SumCounts(a.DownloadDatagrams, b.DownloadDatagrams),
			UploadDatagrams:   SumCounts(a.UploadDatagrams, b.UploadDatagrams),
			Joins:             SumCounts(a.Joins, b.Joins),
		},
	}
}

// sumSubjects returns the rows of the subjects of sums.
func sumSubjects(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID, sums map[usageSubject]AllocationUsage) ([]usageSubject, error) {
	var known []usageSubject
	err := tx.SelectContext(ctx, &known,
		`SELECT id, allocation_id, device_id, owner_id, organisation_id FROM usage_subjects WHERE device_id = $1 AND allocation_id <= $2`,
		serverID, ownerUsage)
	if err != nil {
		return nil, err
	}
	rows := make(map[usageSubject]*int64, len(known))
	for _, s := range known {
		id := s.ID
		s.ID = nil
		rows[s] = id
	}
	subjects := make([]usageSubject, 0, len(sums))
	for key := range sums {
		key.ID = rows[key]
		subjects = append(subjects, key)
	}
	return withUsageSubjects(ctx, tx, subjects)
}

// addUsage adds the counts of a report to the minute, the hour and the day in which its time began, and makes them the
// newest of their allocations.
func addUsage(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID, report UsageReport, subjects []usageSubject) error {
	byAllocation := make(map[int64]usageSubject, len(subjects))
	for _, s := range subjects {
		byAllocation[s.AllocationID] = s
	}
	sums := usageSums(serverID, report, byAllocation)
	of, err := sumSubjects(ctx, tx, serverID, sums)
	if err != nil {
		return err
	}
	var columns [9][]int64
	add := func(s usageSubject, of AllocationUsage) {
		for i, value := range []int64{
			*s.ID, s.AllocationID, of.DownloadBytes, of.UploadBytes, of.DownloadDatagrams, of.UploadDatagrams, of.Joins,
			int64(of.PeakPlayers), int64(of.Players),
		} {
			columns[i] = append(columns[i], value)
		}
	}
	for _, s := range of {
		key := s
		key.ID = nil
		add(s, sums[key])
	}
	for _, of := range report.Allocations {
		if s, ok := byAllocation[of.AllocationID]; ok {
			add(s, of)
		}
	}
	began := report.Ended.Add(-time.Duration(report.Seconds) * time.Second).UTC()
	args := []any{
		serverID, stamp(report.Ended), report.Seconds,
		stamp(began.Truncate(time.Minute)), stamp(began.Truncate(time.Hour)), stamp(began.Truncate(24 * time.Hour)),
	}
	for _, column := range columns {
		args = append(args, pq.Array(column))
	}
	_, err = tx.ExecContext(ctx, addUsageStatement, args...)
	return err
}

// addUsageStatement adds rows in the order of their subjects, as every other does.
const addUsageStatement = `WITH reported AS (
		SELECT * FROM unnest($7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::integer[], $15::integer[])
			AS u (subject_id, allocation_id, download_bytes, upload_bytes, download_datagrams, upload_datagrams, joins, peak_players, players)
		ORDER BY subject_id),
	minutes AS (` + addUsageTo + `usage_minutes AS t` + usageBucket + ` SELECT subject_id, $4::timestamptz` + addedUsage + `),
	hours AS (` + addUsageTo + `usage_hours AS t` + usageBucket + ` SELECT subject_id, $5::timestamptz` + addedUsage + `),
	days AS (` + addUsageTo + `usage_days AS t` + usageBucket + ` SELECT subject_id, $6::timestamptz` + addedUsage + `)
	INSERT INTO usage_now AS n (server_id, allocation_id, subject_id, reported_at, seconds, players, joins,
		download_bytes, upload_bytes, download_datagrams, upload_datagrams)
	SELECT $1, allocation_id, subject_id, $2::timestamptz, $3, players, joins, download_bytes, upload_bytes, download_datagrams, upload_datagrams
	FROM reported WHERE allocation_id > 0
	ON CONFLICT (server_id, allocation_id) DO UPDATE SET subject_id = excluded.subject_id, reported_at = excluded.reported_at, seconds = excluded.seconds,
		players = excluded.players, joins = excluded.joins,
		download_bytes = excluded.download_bytes, upload_bytes = excluded.upload_bytes,
		download_datagrams = excluded.download_datagrams, upload_datagrams = excluded.upload_datagrams
	WHERE n.reported_at <= excluded.reported_at`

const (
	addUsageTo  = `INSERT INTO `
	usageBucket = ` (subject_id, at, download_bytes, upload_bytes, download_datagrams, upload_datagrams, joins, peak_players)`
	addedUsage  = `, download_bytes, upload_bytes, download_datagrams, upload_datagrams, joins, peak_players FROM reported
		WHERE download_bytes + upload_bytes + download_datagrams + upload_datagrams + joins + peak_players > 0
		ON CONFLICT (subject_id, at) DO UPDATE SET
			download_bytes = t.download_bytes + excluded.download_bytes, upload_bytes = t.upload_bytes + excluded.upload_bytes,
			download_datagrams = t.download_datagrams + excluded.download_datagrams,
			upload_datagrams = t.upload_datagrams + excluded.upload_datagrams, joins = t.joins + excluded.joins,
			peak_players = greatest(t.peak_players, excluded.peak_players)`
)

// UsageNow is what a tunnel server last reported of an allocation.
type UsageNow struct {
	AllocationID int64 `db:"allocation_id"`
	// UserID or OrganisationID owns the tunnel client; both are nil if nobody does.
	UserID         *int64 `db:"owner_id"`
	OrganisationID *int64 `db:"organisation_id"`

	ReportedAt time.Time `db:"reported_at"` // The end of the time,
	Seconds    int       `db:"seconds"`     // and its length.
	Players    int       `db:"players"`
	UsageCounts
}

// UsageNow returns what a tunnel server has reported of its allocations whose time did not end before since, by id. It
// leaves out what was counted as a previous owner's: neither that owner nor the new one is told of it any more.
func (d *DB) UsageNow(ctx context.Context, serverID uuid.UUID, since time.Time) ([]UsageNow, error) {
	var rows []UsageNow
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT n.allocation_id, d.owner_id, d.organisation_id, n.reported_at, n.seconds, n.players, n.joins,
			n.download_bytes, n.upload_bytes, n.download_datagrams, n.upload_datagrams
		FROM usage_now n JOIN allocations a ON a.id = n.allocation_id JOIN devices d ON d.id = a.device_id
		JOIN usage_subjects s ON s.id = n.subject_id
			AND (s.owner_id, s.organisation_id) = (coalesce(d.owner_id, 0), coalesce(d.organisation_id, 0))
		WHERE n.server_id = $1 AND n.reported_at >= $2 ORDER BY n.allocation_id`, serverID, stamp(since))
	return rows, wrap(err, "usage of server %s", serverID)
}

// currentUsage is the age of what a tunnel server has reported of players who are still there: it reports them again
// well before.
const currentUsage = time.Minute

// Players returns how many players the allocations have now, of those of which a tunnel server says so. Others have none.
func (d *DB) Players(ctx context.Context, allocationIDs []int64) (map[int64]int, error) {
	var rows []struct {
		AllocationID int64 `db:"allocation_id"`
		Players      int   `db:"players"`
	}
	if len(allocationIDs) == 0 {
		return nil, nil
	}
	err := d.requests.SelectContext(ctx, &rows,
		`SELECT allocation_id, sum(players)::integer AS players FROM usage_now
		WHERE allocation_id = ANY ($1::bigint[]) AND reported_at > now() - $2 * interval '1 second' GROUP BY allocation_id`,
		pq.Array(slices.Clone(allocationIDs)), currentUsage.Seconds())
	players := make(map[int64]int, len(rows))
	for _, row := range rows {
		players[row.AllocationID] = row.Players
	}
	return players, wrap(err, "players of allocations")
}
