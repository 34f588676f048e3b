package db_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// unaudited are the tables whose changes are not in the audit trail, and the columns of the others.
var unaudited = map[string]string{
	"acme_accounts":      "the panel's bookkeeping with certificate authorities, as are the next ones",
	"acme_certificates":  "",
	"acme_challenges":    "",
	"audit_log":          "the trail itself",
	"connections":        "reported; a trigger of its own records those that somebody cuts off",
	"device_logins":      "what counts is the key, which is written with key.create",
	"deleted_devices":    "written with device.delete and device.deny",
	"event_commits":      "the panel's bookkeeping, as is the next one",
	"event_counter":      "",
	"events":             "what people are told of what is in the trail, and of presence and reports, for minutes",
	"goose_db_version":   "migrations",
	"idempotency_keys":   "written with the change that they are about",
	"login_places":       "written with session.login",
	"probes":             "what devices are asked for a check, for seconds",
	"rate_limits":        "counters",
	"refusals":           "counters",
	"replicas":           "leases",
	"webhook_deliveries": "what the panel sends, as are the next ones",
	"webhook_quotas":     "",
	"webhook_sweep":      "",
	"webhook_watch":      "",

	"usage_subjects":     "counters, as are the next ones",
	"usage_minutes":      "",
	"usage_hours":        "",
	"usage_days":         "",
	"usage_reports":      "",
	"usage_now":          "",
	"usage_closed_ports": "",

	"sessions.last_used_at":                "the use of a session, as are the next ones",
	"sessions.address":                     "",
	"sessions.user_agent":                  "",
	"api_keys.last_used_at":                "the use of a key, as is the next one",
	"api_keys.last_used_from":              "",
	"api_keys.id":                          "only when it is made, as are the next ones",
	"api_keys.created_at":                  "",
	"api_keys.hash":                        "a secret",
	"api_keys.prefix":                      "only when it is made, as are the next ones",
	"api_keys.user_id":                     "",
	"api_keys.organisation_id":             "",
	"identities.admin":                     "written with the role of its user",
	"identities.created_at":                "only when it is made, as are the next ones",
	"identities.subject":                   "",
	"identities.user_id":                   "",
	"invitations.id":                       "",
	"invitations.created_at":               "",
	"invitations.expires_at":               "",
	"invitations.invited_by":               "",
	"invitations.organisation_id":          "",
	"invitations.token_hash":               "a secret",
	"devices.started_address":              "gone with the approval",
	"devices.spent_code_hash":              "a secret",
	"devices.tag_hash":                     "a secret, and gone with the next enrollment",
	"sessions.created_at":                  "only when it is made, as are the next ones",
	"sessions.expires_at":                  "",
	"sessions.id":                          "",
	"sessions.user_id":                     "",
	"password_links.expires_at":            "changes with the token's hash",
	"password_links.user_id":               "the key",
	"webhooks.id":                          "only when it is made, as are the next ones",
	"webhooks.created_at":                  "",
	"webhooks.user_id":                     "",
	"webhooks.organisation_id":             "",
	"webhooks.old_secret":                  "changes with the secret, as does the next one",
	"webhooks.old_secret_until":            "",
	"webhooks.watched_from":                "what the panel sends, as are the next ones",
	"webhooks.lease":                       "",
	"webhooks.leased_until":                "",
	"webhooks.attempted_at":                "",
	"webhooks.last_status":                 "",
	"webhooks.last_error":                  "",
	"webhooks.failures":                    "",
	"webhooks.failing_since":               "",
	"webhooks.held_until":                  "",
	"users.created_at":                     "only when it is made, as are the next ones",
	"users.id":                             "",
	"organisations.created_at":             "",
	"organisations.id":                     "",
	"organisation_members.organisation_id": "the key",
	"organisation_members.user_id":         "the key",
	"revoked_signing_keys.id":              "the key",
	"revoked_signing_keys.revoked_at":      "only when it is made, as are the next ones",
	"signing_keys.created_at":              "",
	"kept_out.allocation_id":               "the key",
	"kept_out.source":                      "the address of a player",
	"kept_out.created_at":                  "only when it is made",
	"signing_keys.id":                      "",
	"signing_keys.seed":                    "a secret, and never changed",
	"signing_keys.signs_from":              "only when it is made",
	"signing_keys.needed_at":               "the panel's bookkeeping",
	"settings.id":                          "the key",
	"settings.panel_id":                    "never changed",
	"settings.login_secret":                "a secret, changed by SQL only",
	"allocations.id":                       "the key",
	"allocations.search":                   "made of the other columns",
	"devices.search":                       "",
	"allocations.created_at":               "only when it is made, as are the next ones",
	"allocations.run_id":                   "",
	"allocations.client_reason":            "reported, as are the next ones",
	"allocations.client_state":             "",
	"allocations.server_reason":            "",
	"allocations.server_state":             "",
	"allocations.target":                   "",
	"allocations.target_reason":            "",
	"allocations.drain_until":              "follows device.drain and allocation.move, as do the next ones",
	"allocations.drained":                  "",
	"allocations.draining":                 "",
	"allocations.retires":                  "",
	"devices.id":                           "the key",
	"devices.created_at":                   "only when it is made, as are the next ones",
	"devices.code_hash":                    "",
	"devices.embedded_name":                "",
	"devices.expires_at":                   "",
	"devices.started_from":                 "",
	"devices.user_code":                    "",
	"devices.agent_version":                "reported or presence, as are the next ones",
	"devices.called_from":                  "",
	"devices.connected_at":                 "",
	"devices.control_address":              "",
	"devices.disconnect_reason":            "",
	"devices.drain_total":                  "counted when a drain begins",
	"devices.fingerprint":                  "",
	"devices.first_connected_at":           "",
	"devices.generation":                   "",
	"devices.kept_rules":                   "",
	"devices.last_seen_at":                 "",
	"devices.platform":                     "",
	"devices.players":                      "",
	"devices.polled_at":                    "",
	"devices.relay_port":                   "",
	"devices.replica_id":                   "",
	"devices.token_key":                    "",
	"devices.token_key_version":            "",
	"devices.guessed_host":                 "what is found out about the host, as are the next ones",
	"devices.host_due":                     "",
	"devices.public_addresses":             "",
	"devices.resolved_host":                "",
	"devices.unresolved_since":             "",
}

// TestAudit_EveryColumnIsInTheTrailOrHasAReason compares the triggers with the tables.
func TestAudit_EveryColumnIsInTheTrailOrHasAReason(t *testing.T) {
	d := dbtest.New(t)
	list := func(query string) []string {
		t.Helper()
		rows, err := dbtest.SQL(t, d).QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		var names []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return names
	}
	tables := list(`SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'audit\_%'`)
	recorded := list(`SELECT tgrelid::regclass || '.' || a.attname FROM pg_trigger, unnest(tgattr::int2[]) AS n
		JOIN pg_attribute a ON a.attnum = n WHERE tgname = 'audit_update' AND a.attrelid = tgrelid`)
	seen := map[string]bool{}
	for _, column := range list(`SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'`) {
		table, _, _ := strings.Cut(column, ".")
		for _, name := range []string{table, column} {
			if _, ok := unaudited[name]; ok {
				seen[name] = true
			}
		}
		_, wholly := unaudited[table]
		_, excepted := unaudited[column]
		switch {
		case wholly == slices.Contains(tables, table):
			t.Errorf("table %s is audited by SELECT audit_table(…) in a migration, or has a reason here", table)
		case !wholly && excepted == slices.Contains(recorded, column):
			t.Errorf("column %s is in the audit trail, or has a reason here", column)
		}
	}
	for name := range unaudited {
		if !seen[name] {
			t.Errorf("%s does not exist", name)
		}
	}
}

// TestAudit_ARestoreAddsNothing restores a dump as docs/operations.md says.
func TestAudit_ARestoreAddsNothing(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	newUser(t, d, "root@example.com", "admin")
	ada := newUser(t, d, "ada@example.com", "user")
	if _, err := d.CreateDevice(t.Context(), db.NewDevice{Name: "home", Kind: db.KindClient, OwnerID: &ada.ID, Approved: true}); err != nil {
		t.Fatal(err)
	}
	before := trail(t, d, db.AuditFilter{})
	log, err := d.EventsAfter(t.Context(), 0, 0)
	check(t, err)
	run := func(stdin []byte, name string, args ...string) []byte {
		t.Helper()
		path, err := exec.LookPath(name)
		if installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); err != nil && len(installed) > 0 {
			path, err = installed[len(installed)-1], nil
		}
		if err != nil {
			t.Skip(err)
		}
		command := exec.CommandContext(t.Context(), path, args...)
		command.Stdin = bytes.NewReader(stdin)
		var out, failed bytes.Buffer
		command.Stdout, command.Stderr = &out, &failed
		if err := command.Run(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, failed.Bytes())
		}
		return out.Bytes()
	}
	dump := run(nil, "pg_dump", "-Fc", "--no-owner", "-d", url)
	if _, err := dbtest.SQL(t, d).ExecContext(t.Context(), `DROP SCHEMA public CASCADE; CREATE SCHEMA public`); err != nil {
		t.Fatal(err)
	}
	run(dump, "pg_restore", "--exit-on-error", "--no-owner", "--single-transaction", "-d", url)
	restored := dbtest.Open(t, url)
	wantTrail(t, restored, db.AuditFilter{}, before...)
	again, err := restored.EventsAfter(t.Context(), 0, 0)
	check(t, err)
	if again.Newest != log.Newest || again.Epoch == log.Epoch {
		t.Errorf("the log of events was %+v, and is %+v: its ids are given again", log, again)
	}
	ctx, mine := asSomebody(t)
	if _, err := restored.UpdateUser(ctx, ada.ID, db.UserPatch{Role: new("admin")}); err != nil {
		t.Fatal(err)
	}
	wantTrail(t, restored, mine, "user.update")
}
