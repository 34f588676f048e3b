package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Types of events that [DB.SweepWebhooks] finds.
const (
	EventDeviceOffline       = "device.offline"
	EventDeviceOnline        = "device.online"
	EventAllocationFailed    = "allocation.failed"
	EventAllocationRecovered = "allocation.recovered"
	EventEnrollmentWaiting   = "enrollment.waiting"
	EventQuotaReached        = "quota.reached"
)

const (
	// webhookSweepLock is the advisory lock of [DB.SweepWebhooks]: "hook" in ASCII.
	webhookSweepLock = 0x686f6f6b
	// sweepLimit is how many events of a kind one sweep finds. The others are found by the next ones.
	sweepLimit = 500
	// sweepPause is the time without a sweep after which no panel was there, and sweepGrace for how long a device that
	// is offline then has had no chance to connect.
	sweepPause = 30 * time.Second
	sweepGrace = 30 * time.Second
	// watchOverlap is how far back a sweep looks beyond what the one before has seen: a replica that died shows its
	// devices as offline since its last sign of life.
	watchOverlap = 10 * time.Minute
	watchStep    = time.Hour // How often the webhooks' watched_from follows.
)

// WebhookSweep configures [DB.SweepWebhooks].
type WebhookSweep struct {
	At time.Time
	// Every is the time between two sweeps, whichever replicas make them.
	Every time.Duration
	// Message returns the message of an event, without its WebhookID. It is called several times for events that
	// several webhooks are told of.
	Message func(event WebhookEvent) (WebhookMessage, error)
}

// WebhookEvent is an event of a type. It has what the event is about, as it is now.
type WebhookEvent struct {
	Type       string
	Device     *Device     // Of a device or enrollment.
	Allocation *Allocation // Of an allocation.
}

// finding is an event of a webhook before its device or allocation is read.
type finding struct {
	WebhookID    int64     `db:"webhook_id"`
	DeviceID     uuid.UUID `db:"device_id"`
	AllocationID int64     `db:"allocation_id"`
}

// SweepWebhooks looks for events in the rows of devices and allocations, and queues the messages of the webhooks that
// are to be told. Nothing of it is in memory: whatever replica makes the next sweep, each event is found once. It
// returns the number of messages. If another replica sweeps, or has done so less than Every ago, it returns at once.
//
// A device is offline since it was last seen, and waits for approval since its row was made. After a time in which
// nobody swept, devices get half a minute to connect.
func (d *DB) SweepWebhooks(ctx context.Context, sweep WebhookSweep) (queued int, err error) {
	err = d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		queued = 0
		var watching, ran bool
		if err := tx.GetContext(ctx, &watching, `SELECT EXISTS (SELECT 1 FROM webhooks WHERE enabled)`); err != nil || !watching {
			return err
		}
		// Released with the transaction, however it or the replica ends.
		if err := tx.GetContext(ctx, &ran, `SELECT pg_try_advisory_xact_lock($1)`, int64(webhookSweepLock)); err != nil || !ran {
			return err
		}
		resumed, err := beginSweep(ctx, tx, sweep)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		var messages []WebhookMessage
		for _, kind := range []func(ctx context.Context, tx *sqlx.Tx, at, resumed time.Time) (events map[string][]finding, err error){
			sweepOffline, sweepOnline, sweepFailed, sweepRecovered, sweepEnrollments,
		} {
			events, err := kind(ctx, tx, stamp(sweep.At), resumed)
			if err != nil {
				return err
			}
			for event, rows := range events {
				made, err := sweep.messages(ctx, tx, event, rows)
				if err != nil {
					return err
				}
				messages = append(messages, made...)
			}
		}
		queued = len(messages)
		return queueMessages(ctx, tx, messages, sweep.At)
	})
	if err = wrap(err, "sweep webhooks"); errors.Is(err, ErrNotFound) {
		return 0, nil // A device or allocation was deleted meanwhile: the next sweep does it all.
	}
	return queued, err
}

// beginSweep notes that a sweep begins, and returns since when there was no pause. It returns sql.ErrNoRows if it is
// too early.
func beginSweep(ctx context.Context, tx *sqlx.Tx, sweep WebhookSweep) (resumed time.Time, err error) {
	at := stamp(sweep.At)
	err = tx.GetContext(ctx, &resumed,
		`INSERT INTO webhook_sweep AS s (swept_at, resumed_at) VALUES ($1, $1)
		ON CONFLICT (one) DO UPDATE SET swept_at = $1, resumed_at = CASE WHEN s.swept_at < $3 THEN $1 ELSE s.resumed_at END
			WHERE s.swept_at <= $2 RETURNING resumed_at`,
		at, at.Add(-sweep.Every), at.Add(-sweepPause))
	return resumed, err
}

// watchers has hooks, the webhooks that want one of the types of events in $1.
const watchers = `hooks AS MATERIALIZED (
	SELECT w.id, w.user_id, w.organisation_id, w.events, w.offline_delay, w.watched_from FROM webhooks w
	WHERE w.enabled AND w.events && $1::text[] AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = w.user_id AND u.suspended))`

// watcherPairs joins hooks h with rows f of a query, by their owner, with columns. Each join is one by equality.
func watcherPairs(rows, columns string) string {
	return `SELECT ` + columns + ` FROM hooks h JOIN ` + rows + ` f ON f.owner_id = h.user_id
		UNION ALL SELECT ` + columns + ` FROM hooks h JOIN ` + rows + ` f ON f.organisation_id = h.organisation_id
		UNION ALL SELECT ` + columns + ` FROM hooks h CROSS JOIN ` + rows + ` f WHERE h.user_id IS NULL AND h.organisation_id IS NULL`
}

// watcherOf is the condition that webhook w, if it is enabled, is told of what device d or its allocations do.
const watcherOf = `(w.enabled AND (w.user_id = d.owner_id OR w.organisation_id = d.organisation_id OR num_nonnulls(w.user_id, w.organisation_id) = 0))`

// sweepOffline finds devices that have been offline for as long as their webhooks want to wait.
func sweepOffline(ctx context.Context, tx *sqlx.Tx, at, resumed time.Time) (map[string][]finding, error) {
	var rows []struct {
		finding
		Wanted bool `db:"wanted"`
	}
	types := pq.Array([]string{EventDeviceOffline, EventDeviceOnline})
	err := tx.SelectContext(ctx, &rows,
		`WITH `+watchers+`,
		offline AS MATERIALIZED (
			SELECT d.id, d.owner_id, d.organisation_id, greatest(d.last_seen_at, r.renewed_at) AS since
			FROM devices d LEFT JOIN replicas r ON r.id = d.replica_id
			WHERE d.approved_at IS NOT NULL AND d.first_connected_at IS NOT NULL AND coalesce(r.lease_expires_at <= now(), true)
				AND greatest(d.last_seen_at, r.renewed_at) > (SELECT min(watched_from) FROM hooks)),
		pairs AS (`+watcherPairs("offline", `h.id AS webhook_id, f.id AS device_id, f.since, h.watched_from, h.offline_delay, $5 = ANY (h.events) AS wanted`)+`),
		due AS (SELECT p.* FROM pairs p WHERE p.since > p.watched_from AND p.since + p.offline_delay * interval '1 second' <= $2
				AND $3::timestamptz + greatest(p.offline_delay, $4) * interval '1 second' <= $2
				AND NOT EXISTS (SELECT 1 FROM webhook_watch x WHERE x.device_id = p.device_id AND x.kind = 'offline' AND x.webhook_id = p.webhook_id)
			ORDER BY p.since LIMIT $6),
		noted AS (INSERT INTO webhook_watch (webhook_id, kind, device_id) SELECT webhook_id, 'offline', device_id FROM due)
		SELECT webhook_id, device_id, wanted FROM due ORDER BY since`,
		types, at, resumed, sweepGrace.Seconds(), EventDeviceOffline, sweepLimit)
	if err != nil {
		return nil, err
	}
	var told []finding
	for _, row := range rows {
		if row.Wanted {
			told = append(told, row.finding)
		}
	}
	events := map[string][]finding{EventDeviceOffline: told}
	if len(rows) == sweepLimit {
		return events, nil
	}
	// All was seen, so that what is older need not be looked at again.
	_, err = tx.ExecContext(ctx,
		`UPDATE webhooks SET watched_from = $1::timestamptz - (offline_delay + $2) * interval '1 second'
		WHERE enabled AND watched_from < $1::timestamptz - (offline_delay + $2 + $3) * interval '1 second'
			AND $4::timestamptz + greatest(offline_delay, $5) * interval '1 second' <= $1`,
		at, watchOverlap.Seconds(), watchStep.Seconds(), resumed, sweepGrace.Seconds())
	return events, err
}

// sweepOnline finds devices that are online again. A webhook that would not be told of them any more forgets them.
func sweepOnline(ctx context.Context, tx *sqlx.Tx, _, _ time.Time) (map[string][]finding, error) {
	var rows []finding
	err := tx.SelectContext(ctx, &rows,
		`WITH every AS MATERIALIZED ( -- With a LIMIT in it, each row would be looked up by itself.
			SELECT x.webhook_id, x.device_id, `+watcherOf+` AND $1 = ANY (w.events) AS wanted
			FROM webhook_watch x JOIN webhooks w ON w.id = x.webhook_id JOIN devices d ON d.id = x.device_id
			JOIN replicas r ON r.id = d.replica_id AND r.lease_expires_at > now()
			WHERE x.kind = 'offline'),
		back AS (SELECT * FROM every LIMIT $2),
		forgotten AS (DELETE FROM webhook_watch x USING back b
			WHERE x.kind = 'offline' AND x.webhook_id = b.webhook_id AND x.device_id = b.device_id)
		SELECT webhook_id, device_id FROM back WHERE wanted`, EventDeviceOnline, sweepLimit)
	return map[string][]finding{EventDeviceOnline: rows}, err
}

// failedAllocations are those whose status in the API is failed.
const failedAllocations = `failed AS MATERIALIZED (
	SELECT f.id, d.owner_id, d.organisation_id FROM allocations f
	JOIN devices d ON d.id = f.device_id JOIN devices s ON s.id = f.server_id
	LEFT JOIN replicas dr ON dr.id = d.replica_id AND dr.lease_expires_at > now()
	LEFT JOIN replicas sr ON sr.id = s.replica_id AND sr.lease_expires_at > now()
	WHERE f.retires IS NULL AND NOT (f.draining AND dr.id IS NOT NULL AND sr.id IS NOT NULL)
		AND (f.server_state = 'failed' AND sr.id IS NOT NULL OR f.client_state = 'failed' AND dr.id IS NOT NULL))`

// sweepFailed finds allocations that have failed for as long as their webhooks want to wait. One that is not failed
// any more before that is forgotten.
func sweepFailed(ctx context.Context, tx *sqlx.Tx, at, _ time.Time) (map[string][]finding, error) {
	var rows []struct {
		finding
		Wanted bool `db:"wanted"`
	}
	types := pq.Array([]string{EventAllocationFailed, EventAllocationRecovered})
	err := tx.SelectContext(ctx, &rows,
		`WITH `+watchers+`, `+failedAllocations+`,
		pairs AS (`+watcherPairs("failed", `h.id AS webhook_id, f.id AS allocation_id, h.offline_delay`)+`),
		forgotten AS (DELETE FROM webhook_watch x WHERE x.kind = 'failed' AND x.due_at IS NOT NULL
			AND NOT EXISTS (SELECT 1 FROM pairs p WHERE p.allocation_id = x.allocation_id AND p.webhook_id = x.webhook_id)),
		noted AS (INSERT INTO webhook_watch (webhook_id, kind, allocation_id, due_at)
			SELECT p.webhook_id, 'failed', p.allocation_id, $2::timestamptz + p.offline_delay * interval '1 second' FROM pairs p
			WHERE NOT EXISTS (SELECT 1 FROM webhook_watch x
				WHERE x.allocation_id = p.allocation_id AND x.kind = 'failed' AND x.webhook_id = p.webhook_id) LIMIT $4),
		due AS (SELECT x.webhook_id, x.allocation_id, $3 = ANY (h.events) AS wanted FROM webhook_watch x
			JOIN pairs p ON p.allocation_id = x.allocation_id AND p.webhook_id = x.webhook_id JOIN hooks h ON h.id = x.webhook_id
			WHERE x.kind = 'failed' AND x.due_at <= $2 LIMIT $4),
		told AS (UPDATE webhook_watch x SET due_at = NULL FROM due
			WHERE x.kind = 'failed' AND x.webhook_id = due.webhook_id AND x.allocation_id = due.allocation_id)
		SELECT webhook_id, allocation_id, wanted FROM due`,
		types, at, EventAllocationFailed, sweepLimit)
	var told []finding
	for _, row := range rows {
		if row.Wanted {
			told = append(told, row.finding)
		}
	}
	return map[string][]finding{EventAllocationFailed: told}, err
}

// sweepRecovered finds allocations that webhooks were told had failed, and that players can join again. One that is
// pending, drained or offline has not recovered.
func sweepRecovered(ctx context.Context, tx *sqlx.Tx, _, _ time.Time) (map[string][]finding, error) {
	var rows []finding
	err := tx.SelectContext(ctx, &rows,
		`WITH back AS (
			SELECT x.webhook_id, x.allocation_id, `+watcherOf+` AND $1 = ANY (w.events) AS wanted
			FROM webhook_watch x JOIN webhooks w ON w.id = x.webhook_id JOIN allocations a ON a.id = x.allocation_id
			JOIN devices d ON d.id = a.device_id JOIN devices s ON s.id = a.server_id
			JOIN replicas dr ON dr.id = d.replica_id AND dr.lease_expires_at > now()
			JOIN replicas sr ON sr.id = s.replica_id AND sr.lease_expires_at > now()
			WHERE x.kind = 'failed' AND x.due_at IS NULL AND a.server_state = 'ready' AND a.client_state = 'ready' AND NOT a.draining LIMIT $2),
		forgotten AS (DELETE FROM webhook_watch x USING back b
			WHERE x.kind = 'failed' AND x.webhook_id = b.webhook_id AND x.allocation_id = b.allocation_id)
		SELECT webhook_id, allocation_id FROM back WHERE wanted`, EventAllocationRecovered, sweepLimit)
	return map[string][]finding{EventAllocationRecovered: rows}, err
}

// sweepEnrollments finds devices that wait for approval. A webhook of the whole site is told of those that only admins
// can approve.
func sweepEnrollments(ctx context.Context, tx *sqlx.Tx, at, _ time.Time) (map[string][]finding, error) {
	_, err := tx.ExecContext(ctx,
		`DELETE FROM webhook_watch x USING devices d WHERE x.kind = 'enrollment' AND d.id = x.device_id AND d.approved_at IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	var rows []finding
	err = tx.SelectContext(ctx, &rows,
		`WITH `+watchers+`,
		waiting AS MATERIALIZED (
			SELECT d.id, d.owner_id, d.organisation_id, d.created_at, d.kind = 'server' OR NOT s.owners_approve AS admins
			FROM devices d CROSS JOIN settings s WHERE d.approved_at IS NULL AND d.expires_at > $2),
		pairs AS (`+watcherPairs("waiting", `h.id AS webhook_id, f.id AS device_id, f.created_at, h.watched_from,
			f.admins OR num_nonnulls(h.user_id, h.organisation_id) > 0 AS concerned`)+`),
		due AS (SELECT p.* FROM pairs p WHERE p.concerned AND p.created_at > p.watched_from
				AND NOT EXISTS (SELECT 1 FROM webhook_watch x WHERE x.device_id = p.device_id AND x.kind = 'enrollment' AND x.webhook_id = p.webhook_id)
			ORDER BY p.created_at LIMIT $3),
		noted AS (INSERT INTO webhook_watch (webhook_id, kind, device_id) SELECT webhook_id, 'enrollment', device_id FROM due)
		SELECT webhook_id, device_id FROM due ORDER BY created_at`,
		pq.Array([]string{EventEnrollmentWaiting}), at, sweepLimit)
	return map[string][]finding{EventEnrollmentWaiting: rows}, err
}

// messages returns the messages of events of a type.
func (s WebhookSweep) messages(ctx context.Context, tx *sqlx.Tx, event string, rows []finding) ([]WebhookMessage, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var deviceIDs []uuid.UUID
	var allocationIDs []int64
	for _, row := range rows {
		deviceIDs, allocationIDs = append(deviceIDs, row.DeviceID), append(allocationIDs, row.AllocationID)
	}
	var devices []Device
	err := tx.SelectContext(ctx, &devices, `SELECT `+deviceColumns+` FROM devices d WHERE d.id = ANY ($1::uuid[])`, uuidArray(deviceIDs))
	if err != nil {
		return nil, err
	}
	var allocations []Allocation
	if err := tx.SelectContext(ctx, &allocations, allocationQuery+` WHERE a.id = ANY ($1)`, pq.Array(allocationIDs)); err != nil {
		return nil, err
	}
	deviceOf, allocationOf := map[uuid.UUID]*Device{}, map[int64]*Allocation{}
	for i := range devices {
		deviceOf[devices[i].ID] = &devices[i]
	}
	for i := range allocations {
		allocationOf[allocations[i].ID] = &allocations[i]
	}
	messages := make([]WebhookMessage, 0, len(rows))
	for _, row := range rows {
		e := WebhookEvent{Type: event, Device: deviceOf[row.DeviceID], Allocation: allocationOf[row.AllocationID]}
		if e.Device == nil && e.Allocation == nil {
			continue // Deleted since.
		}
		message, err := s.Message(e)
		if err != nil {
			return nil, err
		}
		message.WebhookID = row.WebhookID
		messages = append(messages, message)
	}
	return messages, nil
}
