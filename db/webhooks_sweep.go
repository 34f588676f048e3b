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
	return queued, wrap(err, "sweep webhooks")
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
const watcherOf = `(w.enabled AND coalesce(w.user_id = d.owner_id, w.organisation_id = d.organisation_id, num_nonnulls(w.user_id, w.organisation_id) = 0))`

// sweepOffline finds devices that have been offline for as long as their webhooks want to wait.
func sweepOffline(ctx context.Context, tx *sqlx.Tx, at, resumed time.Time) (map[string][]finding, error) {
	var due []finding
	types := pq.Array([]string{EventDeviceOffline, EventDeviceOnline})
	err := tx.SelectContext(ctx, &due,
		`WITH `+watchers+`,
		offline AS MATERIALIZED (
			SELECT d.id, d.owner_id, d.organisation_id, greatest(d.last_seen_at, r.renewed_at) AS since
			FROM devices d LEFT JOIN replicas r ON r.id = d.replica_id
			WHERE d.approved_at IS NOT NULL AND d.first_connected_at IS NOT NULL AND coalesce(r.lease_expires_at <= now(), true)
				AND greatest(d.last_seen_at, r.renewed_at) > (SELECT min(watched_from) FROM hooks)),
		pairs AS (`+watcherPairs("offline", `h.id AS webhook_id, f.id AS device_id, f.since, h.watched_from, h.offline_delay, $5 = ANY (h.events) AS wanted`)+`)
		SELECT p.webhook_id, p.device_id, p.wanted FROM pairs p
		WHERE p.since > p.watched_from AND p.since + p.offline_delay * interval '1 second' <= $2
			AND $3::timestamptz + greatest(p.offline_delay, $4) * interval '1 second' <= $2
			AND NOT EXISTS (SELECT 1 FROM webhook_watch x WHERE x.device_id = p.device_id AND x.kind = 'offline' AND x.webhook_id = p.webhook_id)
		ORDER BY p.since LIMIT $6`,
		types, at, resumed, sweepGrace.Seconds(), EventDeviceOffline, sweepLimit)
	if err != nil {
		return nil, err
	}
	found := len(due)
	if due, err = lockFindings(ctx, tx, due); err != nil {
		return nil, err
	}
	events := map[string][]finding{EventDeviceOffline: due}
	if err := noteFindings(ctx, tx, watchOffline, due); err != nil || found == sweepLimit || len(due) < found {
		return events, err
	}
	// All was seen, so that what is older need not be looked at again.
	_, err = tx.ExecContext(ctx,
		`UPDATE webhooks SET watched_from = $1::timestamptz - (offline_delay + $2) * interval '1 second'
		WHERE id IN (SELECT w.id FROM webhooks w
			WHERE w.enabled AND w.watched_from < $1::timestamptz - (w.offline_delay + $2 + $3) * interval '1 second'
				AND $4::timestamptz + greatest(w.offline_delay, $5) * interval '1 second' <= $1
			FOR NO KEY UPDATE SKIP LOCKED)`,
		at, watchOverlap.Seconds(), watchStep.Seconds(), resumed, sweepGrace.Seconds())
	return events, err
}

// sweepOnline finds devices that are online again. A webhook that would not be told of them any more forgets them.
func sweepOnline(ctx context.Context, tx *sqlx.Tx, _, _ time.Time) (map[string][]finding, error) {
	var back []finding
	err := tx.SelectContext(ctx, &back,
		`WITH every AS MATERIALIZED ( -- With a LIMIT in it, each row would be looked up by itself.
			SELECT x.webhook_id, x.device_id, `+watcherOf+` AND $1 = ANY (w.events) AS wanted
			FROM webhook_watch x JOIN webhooks w ON w.id = x.webhook_id JOIN devices d ON d.id = x.device_id
			JOIN replicas r ON r.id = d.replica_id AND r.lease_expires_at > now()
			WHERE x.kind = 'offline')
		SELECT * FROM every LIMIT $2`, EventDeviceOnline, sweepLimit)
	if err != nil {
		return nil, err
	}
	if back, err = lockFindings(ctx, tx, back); err != nil {
		return nil, err
	}
	return map[string][]finding{EventDeviceOnline: back}, forgetFindings(ctx, tx, watchOffline, back)
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
	var rows []finding
	types := pq.Array([]string{EventAllocationFailed, EventAllocationRecovered})
	err := tx.SelectContext(ctx, &rows,
		`WITH `+watchers+`, `+failedAllocations+`,
		pairs AS MATERIALIZED (`+watcherPairs("failed", `h.id AS webhook_id, f.id AS allocation_id, h.offline_delay, $3 = ANY (h.events) AS wanted`)+`)
		(SELECT 'over' AS step, x.webhook_id, x.allocation_id, false AS wanted, NULL::timestamptz AS due_at FROM webhook_watch x
			WHERE x.kind = 'failed' AND x.due_at IS NOT NULL
				AND NOT EXISTS (SELECT 1 FROM pairs p WHERE p.allocation_id = x.allocation_id AND p.webhook_id = x.webhook_id) LIMIT $4)
		UNION ALL (SELECT 'new', p.webhook_id, p.allocation_id, false, $2::timestamptz + p.offline_delay * interval '1 second' FROM pairs p
			WHERE NOT EXISTS (SELECT 1 FROM webhook_watch x
				WHERE x.allocation_id = p.allocation_id AND x.kind = 'failed' AND x.webhook_id = p.webhook_id) LIMIT $4)
		UNION ALL (SELECT 'due', x.webhook_id, x.allocation_id, p.wanted, NULL FROM webhook_watch x
			JOIN pairs p ON p.allocation_id = x.allocation_id AND p.webhook_id = x.webhook_id
			WHERE x.kind = 'failed' AND x.due_at <= $2 LIMIT $4)`,
		types, at, EventAllocationFailed, sweepLimit)
	if err != nil {
		return nil, err
	}
	if rows, err = lockFindings(ctx, tx, rows); err != nil {
		return nil, err
	}
	steps := map[string][]finding{}
	for _, row := range rows {
		steps[row.Step] = append(steps[row.Step], row)
	}
	// Those that are due are watched on, without a time.
	due := steps["due"]
	if err := forgetFindings(ctx, tx, watchFailed, append(steps["over"], due...)); err != nil {
		return nil, err
	}
	return map[string][]finding{EventAllocationFailed: due}, noteFindings(ctx, tx, watchFailed, append(steps["new"], due...))
}

// sweepRecovered finds allocations that webhooks were told had failed, and that players can join again. One that is
// pending, drained or offline has not recovered.
func sweepRecovered(ctx context.Context, tx *sqlx.Tx, _, _ time.Time) (map[string][]finding, error) {
	var back []finding
	err := tx.SelectContext(ctx, &back,
		`SELECT x.webhook_id, x.allocation_id, `+watcherOf+` AND $1 = ANY (w.events) AS wanted
		FROM webhook_watch x JOIN webhooks w ON w.id = x.webhook_id JOIN allocations a ON a.id = x.allocation_id
		JOIN devices d ON d.id = a.device_id JOIN devices s ON s.id = a.server_id
		JOIN replicas dr ON dr.id = d.replica_id AND dr.lease_expires_at > now()
		JOIN replicas sr ON sr.id = s.replica_id AND sr.lease_expires_at > now()
		WHERE x.kind = 'failed' AND x.due_at IS NULL AND a.server_state = 'ready' AND a.client_state = 'ready' AND NOT a.draining LIMIT $2`,
		EventAllocationRecovered, sweepLimit)
	if err != nil {
		return nil, err
	}
	if back, err = lockFindings(ctx, tx, back); err != nil {
		return nil, err
	}
	return map[string][]finding{EventAllocationRecovered: back}, forgetFindings(ctx, tx, watchFailed, back)
}

// sweepEnrollments finds devices that wait for approval. A webhook of the whole site is told of those that only admins
// can approve.
func sweepEnrollments(ctx context.Context, tx *sqlx.Tx, at, _ time.Time) (map[string][]finding, error) {
	var over, due []finding
	err := tx.SelectContext(ctx, &over,
		`SELECT x.webhook_id, x.device_id FROM webhook_watch x JOIN devices d ON d.id = x.device_id
		WHERE x.kind = 'enrollment' AND d.approved_at IS NOT NULL LIMIT $1`, sweepLimit)
	if err != nil {
		return nil, err
	}
	if over, err = lockFindings(ctx, tx, over); err != nil {
		return nil, err
	}
	if err := forgetFindings(ctx, tx, watchEnrollment, over); err != nil {
		return nil, err
	}
	err = tx.SelectContext(ctx, &due,
		`WITH `+watchers+`,
		waiting AS MATERIALIZED (
			SELECT d.id, d.owner_id, d.organisation_id, d.created_at, d.kind = 'server' OR NOT s.owners_approve AS admins
			FROM devices d CROSS JOIN settings s WHERE d.approved_at IS NULL AND d.expires_at > $2),
		pairs AS (`+watcherPairs("waiting", `h.id AS webhook_id, f.id AS device_id, f.created_at, h.watched_from,
			f.admins OR num_nonnulls(h.user_id, h.organisation_id) > 0 AS wanted`)+`)
		SELECT p.webhook_id, p.device_id, p.wanted FROM pairs p WHERE p.wanted AND p.created_at > p.watched_from
			AND NOT EXISTS (SELECT 1 FROM webhook_watch x WHERE x.device_id = p.device_id AND x.kind = 'enrollment' AND x.webhook_id = p.webhook_id)
		ORDER BY p.created_at LIMIT $3`,
		pq.Array([]string{EventEnrollmentWaiting}), at, sweepLimit)
	if err != nil {
		return nil, err
	}
	if due, err = lockFindings(ctx, tx, due); err != nil {
		return nil, err
	}
	return map[string][]finding{EventEnrollmentWaiting: due}, noteFindings(ctx, tx, watchEnrollment, due)
}

// messages returns the messages of events of a type, for those webhooks that want them.
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
		if !row.Wanted {
			continue
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
