package db_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestLists_OfATenantReadNoTableWhole: among 50,000 devices and 100,000 allocations, the pages of a tenant
// read the tenant's own.
func TestLists_OfATenantReadNoTableWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a large database")
	}
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		`INSERT INTO users (email, password_hash, role) SELECT format('user%s@example.com', n), '', 'user' FROM generate_series(1, 5000) n`,
		`INSERT INTO organisations (name) SELECT format('guild%s', n) FROM generate_series(1, 1000) n`,
		`INSERT INTO organisation_members (organisation_id, user_id, role)
			SELECT (SELECT min(id) FROM organisations) + u.id % 1000, u.id, 'member' FROM users u`,
		`INSERT INTO devices (name, kind, owner_id, organisation_id, created_at, expires_at, approved_at)
			SELECT 'home', CASE WHEN n = 1 THEN 'server' ELSE 'client' END,
				CASE WHEN n % 2 = 0 THEN (SELECT min(id) FROM users) + n % 5000 END,
				CASE WHEN n % 2 = 1 AND n > 1 THEN (SELECT min(id) FROM organisations) + CASE WHEN n % 10 = 1 THEN 0 ELSE n % 1000 END END,
				now() - n * interval '1 second', now(), now() FROM generate_series(1, 50000) n`,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
			SELECT d.id, s.id, p.protocol, p.port, 'localhost', 1, '', 'none', 60
			FROM (SELECT id, row_number() OVER () AS n FROM devices WHERE kind = 'client') d
			CROSS JOIN (SELECT id FROM devices WHERE kind = 'server') s
			CROSS JOIN LATERAL (VALUES ('tcp', 1 + d.n % 65000), ('udp', 1 + d.n % 65000)) AS p (protocol, port)`,
		`ANALYZE users, organisations, organisation_members, devices, allocations`,
	} {
		_, err := sql.ExecContext(t.Context(), statement)
		check(t, err)
	}
	var user, guild int64
	check(t, sql.QueryRowContext(t.Context(), `SELECT min(id) + 2000 FROM users`).Scan(&user))
	var organisation int64
	check(t, sql.QueryRowContext(t.Context(), `SELECT min(id) FROM organisations`).Scan(&organisation))
	check(t, sql.QueryRowContext(t.Context(), `SELECT min(id) + 500 FROM organisations`).Scan(&guild))
	var device uuid.UUID
	check(t, sql.QueryRowContext(t.Context(), `SELECT id FROM devices WHERE owner_id = $1 LIMIT 1`, user).Scan(&device))
	var position db.DevicePosition
	check(t, sql.QueryRowContext(t.Context(), `SELECT created_at, id FROM devices ORDER BY created_at LIMIT 1 OFFSET 25000`).
		Scan(&position.CreatedAt, &position.ID))
	manager := db.Scope{OrganisationID: organisation} // Of 5,000 devices.
	whole := regexp.MustCompile(`Seq Scan on (devices|allocations)|devices_newest_idx.*rows=(\d{4,}|[2-9]\d\d)|allocations_pkey.*rows=\d\d`)
	tenant, agent := db.Scope{UserID: user}, db.Scope{DeviceID: device}
	for name, c := range map[string]struct {
		query string
		args  []any
	}{
		"devices":            {db.DevicesQuery(tenant), tenant.Args(nil, nil, 101)},
		"page of devices":    {db.DevicesQuery(tenant), tenant.Args(position.CreatedAt, position.ID, 101)},
		"allocations":        {db.AllocationsQuery(tenant), tenant.Args(nil, 101)},
		"page of allocation": {db.AllocationsQuery(tenant), tenant.Args(50000, 101)},
		"many devices":       {db.DevicesQuery(manager), manager.Args(nil, nil, 101)},
		"page of many":       {db.DevicesQuery(manager), manager.Args(position.CreatedAt, position.ID, 101)},
		"many allocations":   {db.AllocationsQuery(manager), manager.Args(nil, 101)},
		"own allocations":    {db.AllocationsQuery(agent), agent.Args(nil, 101)},
		"user's quota":       {db.UserQuotaQuery, []any{user}},
		"user's usage":       {db.UserUsageQuery, []any{user}},
		"guild's quota":      {db.OrganisationQuotaQuery, everything.Args(guild)},
		"guild's usage":      {db.OrganisationUsageQuery, []any{guild}},
	} {
		for line := range strings.Lines(plan(t, sql, c.query, c.args...)) {
			// What is not executed is about a tunnel server that drains.
			if whole.MatchString(line) && !strings.Contains(line, "never executed") {
				t.Errorf("%s reads more than the tenant's own: %s", name, line)
			}
		}
	}
}
