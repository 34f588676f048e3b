package db

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Notifications tell that something changed, not what: their receivers read the rows again.
const (
	notifyChannel  = "eclitunnel"
	payloadAll     = "all"
	payloadKeys    = "keys"
	payloadServers = "servers"
	payloadDevice  = "device:"

	// liveChannel is for what people follow. On a channel of its own, because replicas of the previous version take
	// notifications that they do not know for a change of everything. Its payloads are topics: see [DB.ListenLive].
	liveChannel = "eclitunnel_live"
)

// The topics of [LiveNotice].
const (
	TopicEvents = "events" // The log of events has new ones. Triggers notify of it.
	TopicUsage  = "usage:" // And the id of a tunnel server, which has reported usage.
)

// notify notifies every replica, once tx commits, that the desired state of the devices has changed.
// ids may contain duplicates.
func notify(ctx context.Context, tx *sqlx.Tx, ids ...uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	payloads := make([]string, len(ids))
	for i, id := range ids {
		payloads[i] = payloadDevice + id.String()
	}
	_, err := tx.ExecContext(ctx,
		`SELECT pg_notify($1, p.payload) FROM (SELECT DISTINCT unnest($2::text[]) AS payload) p`,
		notifyChannel, pq.Array(payloads))
	return wrap(err, "notify")
}

// notifyAll notifies every replica, once tx commits, that anything may have changed.
func notifyAll(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_notify($1, $2)`, notifyChannel, payloadAll)
	return wrap(err, "notify")
}

// notifyServers notifies every replica, once tx commits, that the desired state of every tunnel server has
// changed.
func notifyServers(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_notify($1, $2)`, notifyChannel, payloadServers)
	return wrap(err, "notify")
}

// notifyKeys notifies every replica, once tx commits, that the signing keys have changed.
func notifyKeys(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_notify($1, $2)`, notifyChannel, payloadKeys)
	return wrap(err, "notify")
}

// parseEvent parses a payload. An unknown one, as from a newer replica during a rolling upgrade, is
// an event with All.
func parseEvent(payload string) Event {
	switch payload {
	case payloadKeys:
		return Event{Keys: true}
	case payloadServers:
		return Event{Servers: true}
	}
	id, err := uuid.Parse(strings.TrimPrefix(payload, payloadDevice))
	if err != nil {
		return Event{All: true}
	}
	return Event{DeviceID: id}
}

// uuidArray returns the argument of a ::uuid[] parameter. It is never NULL, with which
// `NOT (id = ANY(…))` would be true for no row.
func uuidArray(ids []uuid.UUID) any {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return pq.Array(texts)
}
