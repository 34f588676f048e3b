package db

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

const (
	// maxRefusals is how many entries an hour has for refused attempts of one kind of action, for
	// accounts that exist, and for none. All others of that hour are counted by one more entry.
	maxRefusals = 100
	// pruneBatch is how many entries one statement of [DB.PruneAudit] deletes.
	pruneBatch = 5000
)

// AuditEntry is an entry of the audit trail: a change, with who made it, or refused attempts. It is
// written by triggers (00023_audit.sql) in the transaction of the change, and outlives what it names.
type AuditEntry struct {
	ID int64     `db:"id"`
	At time.Time `db:"at"`
	// The actor as of that time; see [Actor].
	ActorKind  string  `db:"actor_kind"`
	ActorID    string  `db:"actor_id"`
	ActorName  string  `db:"actor_name"`
	ActorAdmin bool    `db:"actor_admin"`
	Address    *string `db:"address"` // nil if it is not known
	// Action is a kind and a verb, as device.update.
	Action     string `db:"action"`
	TargetKind string `db:"target_kind"`
	TargetID   string `db:"target_id"`
	TargetName string `db:"target_name"`
	// UserID and OrganisationID are whom it concerns: the owner of the target.
	UserID         *int64 `db:"user_id"`
	OrganisationID *int64 `db:"organisation_id"`
	// Changes is a JSON object of fields, each with an array of its values before and after.
	Changes []byte `db:"changes"`
	// Count is how many sessions were ended, or attempts refused within the hour; 1 for other actions.
	Count int64 `db:"count"`
}

const auditColumns = `id, at, actor_kind, actor_id, actor_name, actor_admin, host(address) AS address, action,
	target_kind, target_id, target_name, user_id, organisation_id, changes, count`

// AuditPosition is the position of an entry in the trail, which is sorted by these fields.
type AuditPosition struct {
	At time.Time
	ID int64
}

// AuditFilter selects entries that match all of its fields that are set.
type AuditFilter struct {
	UserID, OrganisationID *int64 // Whom they concern.
	// ActorKind and TargetKind are "" for any; their ids then have no effect.
	ActorKind, ActorID   string
	TargetKind, TargetID string
	Action               string    // An action, or its kind; "" for any.
	From, To             time.Time // From is included, To is not; the zero Time does not bound.
}

// auditQuery returns the query of a page of entries, with its arguments. Each condition is one of an
// index that has the order of the list.
func auditQuery(filter AuditFilter, page Page[AuditPosition]) (string, []any) {
	var conditions []string
	var args []any
	where := func(condition string, values ...any) {
		for _, value := range values {
			args = append(args, value)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		conditions = append(conditions, condition)
	}
	if filter.UserID != nil {
		where(`user_id = ?`, *filter.UserID)
	}
	if filter.OrganisationID != nil {
		where(`organisation_id = ?`, *filter.OrganisationID)
	}
	if filter.ActorKind != "" {
		where(`actor_kind = ? AND actor_id = ?`, filter.ActorKind, filter.ActorID)
	}
	if filter.TargetKind != "" {
		where(`target_kind = ? AND target_id = ?`, filter.TargetKind, filter.TargetID)
	}
	switch {
	case strings.Contains(filter.Action, "."):
		where(`action = ?`, filter.Action)
	case filter.Action != "":
		where(`split_part(action, '.', 1) = ?`, filter.Action)
	}
	at, value := `at`, `?::timestamptz`
	if len(conditions) > 0 { // See the indexes.
		at, value = `(at AT TIME ZONE 'UTC')`, `(?::timestamptz AT TIME ZONE 'UTC')`
	}
	if !filter.From.IsZero() {
		where(at+` >= `+value, filter.From)
	}
	if !filter.To.IsZero() {
		where(at+` < `+value, filter.To)
	}
	if page.After != nil {
		where(`(`+at+`, id) < (`+value+`, ?)`, page.After.At, page.After.ID)
	}
	query := `SELECT ` + auditColumns + ` FROM audit_log`
	if len(conditions) > 0 {
		query += ` WHERE ` + strings.Join(conditions, ` AND `)
	}
	args = append(args, page.Limit)
	return query + fmt.Sprintf(` ORDER BY %s DESC, id DESC LIMIT nullif($%d::bigint, 0)`, at, len(args)), args
}

// Audit lists the entries of a filter, newest first.
func (d *DB) Audit(ctx context.Context, filter AuditFilter, page Page[AuditPosition]) ([]AuditEntry, error) {
	query, args := auditQuery(filter, page)
	var entries []AuditEntry
	err := d.requests.SelectContext(ctx, &entries, query, args...)
	return entries, wrap(err, "audit trail")
}

// Refusal is an attempt that was refused.
type Refusal struct {
	Action string // As session.refuse.
	// The target, if it is known. What a caller made up must not be stored.
	TargetKind, TargetID, TargetName string
	UserID, OrganisationID           *int64 // Whom it concerns.
}

// RecordRefusal counts a refused attempt of the actor of ctx in the audit trail. An hour has one entry for
// each action, actor, target and source (see [WithSource]), with the address of the first attempt. If
// there are too many, one more entry counts the others, so that no attack fills the trail.
func (d *DB) RecordRefusal(ctx context.Context, refusal Refusal) error {
	actor := ActorOf(ctx)
	if actor.Kind == "" {
		actor.Kind = ActorUnknown
	}
	period := refusal.Action
	if refusal.UserID == nil && refusal.OrganisationID == nil {
		period += " of nobody"
	}
	key := sha256.Sum256([]byte(strings.Join([]string{
		actor.Kind, actor.ID, refusal.TargetKind, refusal.TargetID, sourceOf(ctx).String()}, "\x00")))
	var address *string
	if actor.Address.IsValid() {
		text := actor.Address.WithZone("").String()
		address = &text
	}
	_, err := d.requests.ExecContext(ctx,
		`WITH hour AS (SELECT $1 || to_char(now() AT TIME ZONE 'UTC', ' YYYY-MM-DD HH24') AS of),
		slot AS (
			SELECT of, EXISTS (SELECT FROM audit_log l WHERE l.refusal_window = of AND l.refusal_key = $2)
				OR (SELECT count(*) FROM (SELECT FROM audit_log l WHERE l.refusal_window = of LIMIT $3) AS entries) < $3 AS own
			FROM hour),
		attempt AS (
			SELECT $4::text AS actor_id, $5::text AS actor_name, $6::inet AS address, $7::text AS target_id,
				$8::text AS target_name, $9::bigint AS user_id, $14::bigint AS organisation_id, $13::boolean AS admin, $2::bytea AS key)
		INSERT INTO audit_log AS l (actor_kind, actor_id, actor_name, actor_admin, address, action, target_kind, target_id,
			target_name, user_id, organisation_id, refusal_window, refusal_key)
		SELECT $10, coalesce(a.actor_id, ''), coalesce(a.actor_name, ''), coalesce(a.admin, false), a.address, $11, $12, coalesce(a.target_id, ''),
			coalesce(a.target_name, ''), a.user_id, a.organisation_id, s.of, coalesce(a.key, '')
		FROM slot s LEFT JOIN attempt a ON s.own
		ON CONFLICT (refusal_window, refusal_key) WHERE refusal_window IS NOT NULL DO UPDATE SET count = l.count + 1`,
		period, key[:], maxRefusals, actor.ID, actor.Name, address, refusal.TargetID,
		refusal.TargetName, refusal.UserID, actor.Kind, refusal.Action, refusal.TargetKind, actor.Admin,
		refusal.OrganisationID)
	return wrap(err, "record a refusal")
}

// PruneAudit deletes the oldest entries from before a time, at most 5,000, and returns how many. If several
// replicas call it at once, each deletes others.
func (d *DB) PruneAudit(ctx context.Context, before time.Time) (int64, error) {
	result, err := d.devices.ExecContext(ctx,
		`DELETE FROM audit_log WHERE (at, id) IN (
			SELECT at, id FROM audit_log WHERE at < $1 ORDER BY at, id LIMIT $2 FOR UPDATE SKIP LOCKED)`,
		stamp(before), pruneBatch)
	if err != nil {
		return 0, wrap(err, "prune the audit trail")
	}
	deleted, err := result.RowsAffected()
	return deleted, wrap(err, "prune the audit trail")
}
