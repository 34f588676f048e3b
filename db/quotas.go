package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Quota is how much an owner of devices, a user or an organisation, may have. A nil field sets no limit of its own.
// It is stored as a JSON object.
type Quota struct {
	Devices     *int `json:"devices"`     // Approved devices.
	Allocations *int `json:"allocations"` // A port in both protocols is two.
	// PortsOutsideRange are public ports outside the range of their tunnel server. A port in both protocols is one.
	PortsOutsideRange *int `json:"portsOutsideRange"`
}

// Scan implements [database/sql.Scanner].
func (q *Quota) Scan(value any) error {
	text, ok := value.([]byte)
	if !ok {
		return fmt.Errorf("a quota is a %T", value)
	}
	*q = Quota{}
	return json.Unmarshal(text, q)
}

// QuotaPatch changes a Quota: a JSON object with its fields, of which a null removes the limit. "" changes nothing.
type QuotaPatch = Rules

// Usage is how much an owner has.
type Usage struct {
	Devices           int `db:"devices_used"`
	Allocations       int `db:"allocations_used"`
	PortsOutsideRange int `db:"outside_used"`
}

// OwnerQuota is the quota of an owner with what is used.
type OwnerQuota struct {
	Own    Quota `db:"own"`    // What was set for the owner.
	Limits Quota `db:"limits"` // What is in effect; nil is no limit.
	Usage
}

// QuotaError means that an owner would have more than the quota. It is an [ErrConflict].
type QuotaError struct {
	Resource string // The name of the field of Quota in JSON.
	Limit    int
	Used     int // Without what was to be added.
	// UserID or OrganisationID is the owner; the other one is 0.
	UserID, OrganisationID int64
}

// Error returns the resource and the numbers.
func (e *QuotaError) Error() string {
	return fmt.Sprintf("quota of %s exceeded: %d of %d used", e.Resource, e.Used, e.Limit)
}

// Unwrap returns [ErrConflict].
func (e *QuotaError) Unwrap() error { return ErrConflict }

// quotaLimits are the limits in effect of owner u or o; those that are neither have none. The site's default does
// not count for admins, who change it.
const quotaLimits = `CASE WHEN u.id IS NULL AND o.id IS NULL THEN '{}'
	WHEN u.role = 'admin' THEN u.quota ELSE settings.quota || coalesce(u.quota, o.quota) END AS limits`

// usageOf returns the query for the Usage of the owner with an id in a column of devices. It finds the devices, and
// then their allocations, by indexes.
func usageOf(column, id string) string {
	return `SELECT (SELECT count(*) FROM devices d WHERE d.` + column + ` = ` + id + ` AND d.approved_at IS NOT NULL) AS devices_used,
			count(*) AS allocations_used, ` + portsOutside + ` AS outside_used
		FROM devices d JOIN allocations a ON a.device_id = d.id JOIN devices s ON s.id = a.server_id
		WHERE d.` + column + ` = ` + id + ` AND a.retires IS NULL`
}

// portsOutside is the number of ports among allocations a that are outside the range of their tunnel servers s.
const portsOutside = `count(DISTINCT (a.server_id, a.port)) FILTER (WHERE a.port NOT BETWEEN s.port_first AND s.port_last)`

// The queries for an [OwnerQuota]. $1 is the user, $4 the organisation of a scope.
var (
	userQuotaQuery = `SELECT u.quota AS own, ` + quotaLimits + `, used.* FROM users u LEFT JOIN organisations o ON false
		CROSS JOIN settings CROSS JOIN LATERAL (` + usageOf("owner_id", "u.id") + `) AS used WHERE u.id = $1`
	organisationQuotaQuery = `SELECT o.quota AS own, ` + quotaLimits + `, used.* FROM organisations o LEFT JOIN users u ON false
		CROSS JOIN settings CROSS JOIN LATERAL (` + usageOf("organisation_id", "o.id") + `) AS used
		WHERE o.id = $4 AND ` + visibleOrganisation
)

// UserQuota returns the quota of a user.
func (d *DB) UserQuota(ctx context.Context, id int64) (OwnerQuota, error) {
	var quota OwnerQuota
	err := d.requests.GetContext(ctx, &quota, userQuotaQuery, id)
	return quota, wrap(err, "quota of user %d", id)
}

// OrganisationQuota returns the quota of an organisation in scope.
func (d *DB) OrganisationQuota(ctx context.Context, scope Scope, id int64) (OwnerQuota, error) {
	var quota OwnerQuota
	err := d.requests.GetContext(ctx, &quota, organisationQuotaQuery, scope.args(id)...)
	return quota, wrap(err, "quota of organisation %d", id)
}

// UpdateUserQuota changes the quota of a user. A limit below what is used removes nothing.
func (d *DB) UpdateUserQuota(ctx context.Context, id int64, patch QuotaPatch) (OwnerQuota, error) {
	quota, err := d.updateQuota(ctx, `UPDATE users SET quota = `+patched("quota", "$2")+` WHERE id = $1 RETURNING id`,
		id, patch, userQuotaQuery, id)
	return quota, wrap(err, "update quota of user %d", id)
}

// UpdateOrganisationQuota changes the quota of an organisation, for an admin of the panel. A limit below what is
// used removes nothing.
func (d *DB) UpdateOrganisationQuota(ctx context.Context, id int64, patch QuotaPatch) (OwnerQuota, error) {
	quota, err := d.updateQuota(ctx, `UPDATE organisations SET quota = `+patched("quota", "$2")+` WHERE id = $1 RETURNING id`,
		id, patch, organisationQuotaQuery, Scope{All: true}.args(id)...)
	return quota, wrap(err, "update quota of organisation %d", id)
}

// updateQuota changes the quota of the owner with an id, and reads it by a query.
func (d *DB) updateQuota(ctx context.Context, update string, id int64, patch QuotaPatch, query string, args ...any) (OwnerQuota, error) {
	var quota OwnerQuota
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockQuotas(ctx, tx); err != nil {
			return err
		}
		// The quotas are locked.
		if err := checkCondition[OwnerQuota](ctx, tx, query, args...); err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &id, update, id, patch); err != nil {
			return err
		}
		return tx.GetContext(ctx, &quota, query, args...)
	})
	return quota, err
}
