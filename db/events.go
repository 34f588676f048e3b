package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
)

const (
	// eventRetention and maxEvents bound the log of events; see [DB.PruneEvents].
	eventRetention = 15 * time.Minute
	maxEvents      = 100_000
	// pruneEventsBatch is how many events one statement of [DB.PruneEvents] deletes.
	pruneEventsBatch = 5000
)

// The types of events that the database writes by itself, for each change of a row that the API shows.
const (
	EventDeviceCreated     = "device.created"
	EventDeviceUpdated     = "device.updated"
	EventDeviceDeleted     = "device.deleted"
	EventAllocationCreated = "allocation.created"
	EventAllocationUpdated = "allocation.updated"
	EventAllocationDeleted = "allocation.deleted"
)

// LoggedEvent is an event of the log (00031_events.sql). It tells what changed, and whose it is; a device or an
// allocation itself is read when the event is sent.
type LoggedEvent struct {
	// ID is greater than those of all events that were committed before. Events are never added between others.
	ID           int64      `db:"id"`
	At           time.Time  `db:"at"`
	Type         string     `db:"type"` // One of the constants, or that of [NewEvent].
	DeviceID     *uuid.UUID `db:"device_id"`
	AllocationID *int64     `db:"allocation_id"`
	// UserID or OrganisationID owns the device, or owned it when it was deleted; both are nil if nobody does.
	UserID         *int64 `db:"user_id"`
	OrganisationID *int64 `db:"organisation_id"`
	// Transferred means that with this event the device, or that of the allocation, has another owner. Then the
	// previous owner is set, unless there was none: who saw it before and does not now has lost it.
	Transferred            bool   `db:"transferred"`
	PreviousUserID         *int64 `db:"previous_user_id"`
	PreviousOrganisationID *int64 `db:"previous_organisation_id"`
	// Payload is a JSON object with further fields; nil for devices and allocations.
	Payload []byte `db:"payload"`
}

// NewEvent is an event that is no change of a device or an allocation.
type NewEvent struct {
	Type string `json:"type"` // Required.
	// DeviceID or AllocationID is what it is about. Its owner is the event's, unless the event has one of its own,
	// which it needs if neither may exist any more.
	DeviceID       *uuid.UUID `json:"device,omitempty"`
	AllocationID   *int64     `json:"allocation,omitempty"`
	UserID         *int64     `json:"user,omitempty"`
	OrganisationID *int64     `json:"organisation,omitempty"`
	// Payload is a JSON object with the event's further fields; nil for none.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// appendEvents adds events to the log, in their order, when tx commits, after those of the rows that it changes. From
// the commit on, transactions with events wait for each other: what takes time comes before.
func appendEvents(ctx context.Context, tx *sqlx.Tx, events ...NewEvent) error {
	if len(events) == 0 {
		return nil
	}
	text, err := json.Marshal(events)
	if err != nil {
		return wrap(err, "append events")
	}
	_, err = tx.ExecContext(ctx, `SELECT event_append($1::jsonb)`, string(text))
	return wrap(err, "append events")
}

// EventLog is a part of the log of events.
type EventLog struct {
	// Epoch is a short text that changes when ids may be given twice, as after a failover or the restoration of a
	// backup: ids of another epoch mean nothing.
	Epoch string
	// Newest is the id of the last event of the log, and Before that of the last one that is not in it any more; 0 if
	// there is none.
	Newest, Before int64
	// Events are in the order of their ids.
	Events []LoggedEvent
}

// Has reports whether the log has every event after the id that it was read for. Where two replicas delete the oldest
// ones at once, some may lack for a moment between those that are left.
func (l EventLog) Has(after int64) bool {
	n := len(l.Events)
	return after >= l.Before && after <= l.Newest && (n == 0 || l.Events[n-1].ID == after+int64(n))
}

// EventsAfter returns the events after an id, at most limit of them, of one snapshot. With a limit of 0 it returns none,
// and tells where the log begins and ends.
func (d *DB) EventsAfter(ctx context.Context, after int64, limit int) (EventLog, error) {
	var rows []struct {
		Epoch  string `db:"epoch"`
		Newest int64  `db:"newest"`
		Before int64  `db:"before"`
		LoggedEvent
	}
	err := d.devices.SelectContext(ctx, &rows,
		`SELECT event_epoch() AS epoch, c.last AS newest, coalesce((SELECT min(o.id) - 1 FROM events o), c.last) AS before,
			coalesce(e.id, 0) AS id, coalesce(e.at, 'epoch') AS at, coalesce(e.type, '') AS type,
			e.device_id, e.allocation_id, e.user_id, e.organisation_id,
			coalesce(e.transferred, false) AS transferred, e.previous_user_id, e.previous_organisation_id, e.payload
		FROM event_counter c
		LEFT JOIN (SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2) AS e ON true ORDER BY e.id`, after, limit)
	if err != nil {
		return EventLog{}, wrap(err, "events after %d", after)
	}
	var log EventLog
	for _, row := range rows {
		log.Epoch, log.Newest, log.Before = row.Epoch, row.Newest, row.Before
		if row.ID != 0 {
			log.Events = append(log.Events, row.LoggedEvent)
		}
	}
	return log, nil
}

// RecordLapses writes the events of the devices that are offline because the lease of their replica has expired. Each
// lapse is recorded once, whichever replica calls it, and by whichever of them calls it first.
func (d *DB) RecordLapses(ctx context.Context) error {
	_, err := d.devices.ExecContext(ctx,
		`UPDATE replicas SET lapsed = true WHERE id IN (
			SELECT id FROM replicas WHERE NOT lapsed AND lease_expires_at <= now() FOR NO KEY UPDATE SKIP LOCKED)`)
	return wrap(err, "record expired leases")
}

// PruneEvents deletes events from the beginning of the log: those that are older than 15 minutes, and more than the
// newest 100,000. It deletes a few thousand at a time, and reports whether there are more.
func (d *DB) PruneEvents(ctx context.Context) (more bool, err error) {
	result, err := d.devices.ExecContext(ctx,
		`WITH oldest AS (SELECT id, at FROM events ORDER BY id LIMIT $3),
		due AS (SELECT e.id FROM events e WHERE e.id IN (
				SELECT o.id FROM oldest o WHERE o.at < now() - $1 * interval '1 second'
					OR o.id <= (SELECT last FROM event_counter) - $2::bigint)
			FOR UPDATE SKIP LOCKED)
		DELETE FROM events e USING due WHERE e.id = due.id`,
		eventRetention.Seconds(), maxEvents, pruneEventsBatch)
	if err != nil {
		return false, wrap(err, "prune events")
	}
	deleted, err := result.RowsAffected()
	return deleted == pruneEventsBatch, wrap(err, "prune events")
}
