package db

import (
	"context"
	"database/sql"
	"errors"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Quotas are exact, whatever is added at the same time on whichever replica. A transaction that adds to what an
// owner has
//   - shares the advisory lock quotaLock, which a transaction that changes a limit takes alone,
//   - locks the owner's row, if there is a limit that may be reached,
//   - adds, and counts what the owner has then, also what transactions added that had the row before.
//
// It takes both locks before those of devices, as everything that locks owners and devices. Without a limit it
// only has the first one, which keeps no others waiting.

// quotaLock is the advisory lock of quotas: "eclq" in ASCII.
const quotaLock = 0x65636c71

// shareQuotas keeps the limits of all owners as they are until tx ends.
func shareQuotas(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock_shared($1)`, int64(quotaLock))
	return err
}

// lockQuotas is for transactions that change limits. It waits for those that add, which then wait until tx ends.
// Unlike a row, such a lock is not passed on among those who share it while somebody waits.
func lockQuotas(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(quotaLock))
	return err
}

// owner is the user or organisation that owns a device: at most one field is set.
type owner struct {
	UserID         int64 `db:"owner_id"`
	OrganisationID int64 `db:"organisation_id"`
}

const ownerColumns = `coalesce(d.owner_id, 0) AS owner_id, coalesce(d.organisation_id, 0) AS organisation_id`

// ownerOf returns an owner of which at most one id is set.
func ownerOf(userID, organisationID *int64) owner {
	var o owner
	if userID != nil {
		o.UserID = *userID
	}
	if organisationID != nil {
		o.OrganisationID = *organisationID
	}
	return o
}

// quotaHold is the quota of an owner, which tx has locked as far as is necessary. The zero quotaHold holds nothing.
type quotaHold struct {
	owner
	Limits Quota `db:"limits"`
}

// The sources of [holdQuota]: rows d with the columns of an owner.
const (
	ofOwner  = `(SELECT nullif($1::bigint, 0) AS owner_id, nullif($2::bigint, 0) AS organisation_id) d`
	ofDevice = `(SELECT owner_id, organisation_id FROM devices WHERE id = $1) d`
)

// holdQuota locks the quota of the owner of the row of a source, for a transaction that may add something of each
// field of may that is not 0. It does so before tx locks devices. The owner of a device may change until tx has
// locked the device.
func holdQuota(ctx context.Context, tx *sqlx.Tx, may Usage, source string, args ...any) (quotaHold, error) {
	var hold quotaHold
	if err := shareQuotas(ctx, tx); err != nil {
		return hold, err
	}
	// A statement of its own sees the limits that were set while the lock was waited for.
	err := tx.GetContext(ctx, &hold, `SELECT `+ownerColumns+`, `+quotaLimits+` FROM `+source+`
		LEFT JOIN users u ON u.id = d.owner_id LEFT JOIN organisations o ON o.id = d.organisation_id CROSS JOIN settings`, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return quotaHold{}, nil // What follows finds out, too, that it does not exist.
	}
	if err != nil {
		return hold, err
	}
	hold.Limits = hold.Limits.of(may)
	if !hold.Limits.reachable() {
		return hold, nil
	}
	lock, id := `SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE`, hold.UserID
	if hold.OrganisationID != 0 {
		lock, id = `SELECT id FROM organisations WHERE id = $1 FOR NO KEY UPDATE`, hold.OrganisationID
	}
	_, err = tx.ExecContext(ctx, lock, id)
	return hold, err
}

// of returns the limits of what is more than 0 in a usage.
func (q Quota) of(usage Usage) Quota {
	if usage.Devices == 0 {
		q.Devices = nil
	}
	if usage.Allocations == 0 {
		q.Allocations = nil
	}
	if usage.PortsOutsideRange == 0 {
		q.PortsOutsideRange = nil
	}
	return q
}

// reachable reports whether how much an owner has decides about a limit: with a limit of 0 nothing can be added.
func (q Quota) reachable() bool {
	for _, limit := range []*int{q.Devices, q.Allocations, q.PortsOutsideRange} {
		if limit != nil && *limit > 0 {
			return true
		}
	}
	return false
}

// check returns a [QuotaError] if the owner now has more than the quota of something that tx has added.
func (h quotaHold) check(ctx context.Context, tx *sqlx.Tx, added Usage) error {
	limits := h.Limits.of(added)
	if limits == (Quota{}) {
		return nil
	}
	query, id := usageOf("owner_id", "$1"), h.UserID
	if h.OrganisationID != 0 {
		query, id = usageOf("organisation_id", "$1"), h.OrganisationID
	}
	var now Usage
	if err := tx.GetContext(ctx, &now, query, id); err != nil {
		return err
	}
	for _, r := range []struct {
		resource   string
		limit      *int
		now, added int
	}{
		{"devices", limits.Devices, now.Devices, added.Devices},
		{"allocations", limits.Allocations, now.Allocations, added.Allocations},
		{"portsOutsideRange", limits.PortsOutsideRange, now.PortsOutsideRange, added.PortsOutsideRange},
	} {
		if r.limit != nil && r.now > *r.limit {
			return &QuotaError{
				Resource: r.resource, Limit: *r.limit, Used: max(0, r.now-r.added), UserID: h.UserID, OrganisationID: h.OrganisationID,
			}
		}
	}
	return nil
}

// allocated returns what allocations count for, those of a condition on allocations a with the argument $1.
func allocated(ctx context.Context, tx *sqlx.Tx, condition string, arg any) (Usage, error) {
	var usage Usage
	err := tx.GetContext(ctx, &usage, `SELECT count(*) AS allocations_used, `+portsOutside+` AS outside_used
		FROM allocations a JOIN devices s ON s.id = a.server_id WHERE a.retires IS NULL AND `+condition, arg)
	return usage, err
}

// skipOwnPort releases the quota if an allocation has a port already, which is no new one. nil is no port.
func (h *quotaHold) skipOwnPort(ctx context.Context, tx *sqlx.Tx, id int64, port *int) error {
	if port == nil || h.Limits == (Quota{}) {
		return nil
	}
	var own bool
	err := tx.GetContext(ctx, &own, `SELECT port = $2 FROM allocations WHERE id = $1 FOR NO KEY UPDATE`, id, *port)
	if own {
		h.Limits = Quota{}
	}
	return err
}

// checkAllocations is check for allocations that tx has created, or, if they are not new, given other ports.
func (h quotaHold) checkAllocations(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	if h.Limits == (Quota{}) {
		return nil
	}
	added, err := allocated(ctx, tx, `a.id = ANY ($1)`, pq.Array(ids))
	if err != nil {
		return err
	}
	return h.check(ctx, tx, added)
}

// checkDevices is check for devices that tx has given to the owner, with their allocations.
func (h quotaHold) checkDevices(ctx context.Context, tx *sqlx.Tx, ids []uuid.UUID) error {
	if h.Limits == (Quota{}) || len(ids) == 0 {
		return nil
	}
	added, err := allocated(ctx, tx, `a.device_id = ANY ($1::uuid[])`, uuidArray(ids))
	if err != nil {
		return err
	}
	added.Devices = len(ids)
	return h.check(ctx, tx, added)
}
