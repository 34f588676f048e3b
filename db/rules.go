package db

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Rules are rules of allocations that somebody has set, as a JSON object: its fields are those of the
// contract's AllocationRules, and none is null. "" means none. Values with the same rules are equal.
type Rules string

const noRules = "{}"

// Value implements [driver.Valuer].
func (r Rules) Value() (driver.Value, error) {
	if r == "" {
		return noRules, nil
	}
	return string(r), nil
}

// Scan implements [database/sql.Scanner].
func (r *Rules) Scan(value any) error {
	text, ok := value.([]byte)
	if !ok {
		return fmt.Errorf("rules are a %T", value)
	}
	*r = Rules(text)
	if *r == noRules {
		*r = ""
	}
	return nil
}

// RulesPatch changes Rules: a JSON object of the same fields, of which a null removes the rule. ""
// changes nothing.
type RulesPatch = Rules

// patched returns the expression for rules after a patch.
func patched(rules, patch string) string {
	return `jsonb_strip_nulls(` + rules + ` || ` + patch + `::jsonb)`
}

// SiteRules are the rules for all allocations.
type SiteRules struct {
	// Defaults count where neither the allocation nor the organisation has a rule.
	Defaults Rules `db:"rule_defaults"`
	// Ceiling are the largest values that can be in effect.
	Ceiling Rules `db:"rule_ceiling"`
}

const siteRuleColumns = `rule_defaults, rule_ceiling`

// RuledAllocation is an allocation with the rules that others have set for it.
type RuledAllocation struct {
	Allocation
	SiteRules
	// OrganisationRules are those of the organisation that owns the device.
	OrganisationRules Rules `db:"organisation_rules"`
}

// RuledAllocation returns an allocation of a device in scope, with its rules.
func (d *DB) RuledAllocation(ctx context.Context, scope Scope, id int64) (RuledAllocation, error) {
	var allocation RuledAllocation
	err := d.requests.GetContext(ctx, &allocation,
		`SELECT `+allocationColumns+`, `+siteRuleColumns+`, coalesce(o.rules, '{}') AS organisation_rules`+
			allocationTables+` LEFT JOIN organisations o ON o.id = d.organisation_id CROSS JOIN settings
		WHERE a.id = $4 AND a.retires IS NULL AND `+visible, scope.args(id)...)
	return allocation, wrap(err, "rules of allocation %d", id)
}

// OrganisationRules returns the rules of an organisation in scope for the allocations of its devices.
func (d *DB) OrganisationRules(ctx context.Context, scope Scope, id int64) (Rules, error) {
	var rules Rules
	err := d.requests.GetContext(ctx, &rules,
		`SELECT o.rules FROM organisations o WHERE o.id = $4 AND `+visibleOrganisation, scope.args(id)...)
	return rules, wrap(err, "rules of organisation %d", id)
}

// UpdateOrganisationRules changes the rules of an organisation that the scope manages, and notifies
// the tunnel servers on which its devices have allocations.
func (d *DB) UpdateOrganisationRules(ctx context.Context, scope Scope, id int64, patch RulesPatch) (Rules, error) {
	var rules Rules
	err := d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		err := checkCondition[Rules](ctx, tx, `SELECT o.rules FROM organisations o
			WHERE o.id = $4 AND `+manageableOrganisation+` FOR NO KEY UPDATE OF o`, scope.args(id)...)
		if err != nil {
			return err
		}
		err = tx.GetContext(ctx, &rules,
			`UPDATE organisations AS o SET rules = `+patched("o.rules", "$5")+`
			WHERE o.id = $4 AND `+manageableOrganisation+` RETURNING o.rules`, scope.args(id, patch)...)
		if err := scope.refused(ctx, tx, err, organisationRow, id); err != nil {
			return err
		}
		var servers []uuid.UUID
		err = tx.SelectContext(ctx, &servers,
			`SELECT DISTINCT a.server_id FROM allocations a JOIN devices d ON d.id = a.device_id
			WHERE d.organisation_id = $1`, id)
		if err != nil {
			return err
		}
		return notify(ctx, tx, servers...)
	})
	return rules, wrap(err, "update rules of organisation %d", id)
}

// updateRetiredRules gives the old ports of an allocation its rules, and returns their tunnel servers.
func updateRetiredRules(ctx context.Context, tx *sqlx.Tx, id int64) ([]uuid.UUID, error) {
	var servers []uuid.UUID
	err := tx.SelectContext(ctx, &servers,
		`UPDATE allocations o SET rules = a.rules FROM allocations a
		WHERE a.id = $1 AND o.retires = a.id RETURNING o.server_id`, id)
	return servers, err
}

// organisationRules returns the rules of the organisations that own the clients of a tunnel server, by
// organisation.
func organisationRules(ctx context.Context, tx *sqlx.Tx, serverID uuid.UUID) (map[int64]Rules, error) {
	var rows []struct {
		ID    int64 `db:"id"`
		Rules Rules `db:"rules"`
	}
	err := tx.SelectContext(ctx, &rows,
		`SELECT o.id, o.rules FROM organisations o
		WHERE o.rules <> '{}' AND o.id IN (SELECT d.organisation_id FROM devices d
			WHERE d.id IN (SELECT a.device_id FROM allocations a WHERE a.server_id = $1))`, serverID)
	rules := make(map[int64]Rules, len(rows))
	for _, row := range rows {
		rules[row.ID] = row.Rules
	}
	return rules, err
}

// keepsRules is the condition that tunnel server d keeps every rule that has been set for an allocation
// of device $1 whose own rules are $5. A rule that is lifted by the largest value counts too, although
// every tunnel server keeps it: this only prefers some to others.
const keepsRules = `NOT EXISTS (
	SELECT 1 FROM settings CROSS JOIN devices c LEFT JOIN organisations o ON o.id = c.organisation_id,
		jsonb_object_keys(jsonb_strip_nulls($5::jsonb) || coalesce(o.rules, '{}') || rule_defaults || rule_ceiling) AS rule
	WHERE c.id = $1 AND rule <> ALL (d.kept_rules))`

// rulesOf returns the rules that any of several allocations has.
func rulesOf(ctx context.Context, tx *sqlx.Tx, ids pq.Int64Array) (Rules, error) {
	var rules Rules
	err := tx.GetContext(ctx, &rules,
		`SELECT coalesce(jsonb_object_agg(rule, true), '{}')
		FROM allocations a, jsonb_object_keys(a.rules) AS rule WHERE a.id = ANY ($1)`, ids)
	return rules, err
}
