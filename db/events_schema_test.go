package db_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// unshown are the columns of devices and allocations whose changes are no events, and why.
var unshown = map[string]string{
	"devices.id":                 "the key",
	"devices.code_hash":          "a secret, as are the next ones",
	"devices.spent_code_hash":    "",
	"devices.tag_hash":           "",
	"devices.started_from":       "kept for limits, as are the next ones",
	"devices.started_address":    "",
	"devices.polled_at":          "",
	"devices.token_version":      "the panel's bookkeeping, as are the next ones",
	"devices.token_key":          "",
	"devices.token_key_version":  "",
	"devices.generation":         "",
	"devices.called_from":        "",
	"devices.host_due":           "",
	"devices.kept_rules":         "",
	"devices.embedded_name":      "",
	"devices.drain_move":         "",
	"devices.drain_total":        "",
	"devices.first_connected_at": "changes with presence, as do the next ones",
	"devices.last_seen_at":       "",
	"devices.connected_at":       "",
	"devices.replica_id":         "presence, which has events of its own",
	"devices.search":             "made of the other columns",
	"allocations.id":             "the key",
	"allocations.search":         "made of the other columns",
	"allocations.drained":        "the end of a drain, which is an event of the tunnel server, as is the next one",
	"allocations.drain_until":    "",
	"allocations.retires":        "set only in rows that are not shown",
}

// TestEvents_EveryColumnIsShownOrHasAReason compares the functions of the triggers with the tables.
func TestEvents_EveryColumnIsShownOrHasAReason(t *testing.T) {
	sql := dbtest.SQL(t, dbtest.New(t))
	tuples := regexp.MustCompile(`\(([^()]*)\) IS DISTINCT FROM \(([^()]*)\) AS shown`)
	seen := map[string]bool{}
	for _, table := range []string{"devices", "allocations"} {
		var source, columns string
		check(t, sql.QueryRowContext(t.Context(), `SELECT prosrc FROM pg_proc WHERE proname = 'event_update_of_' || $1`, table).Scan(&source))
		check(t, sql.QueryRowContext(t.Context(), `SELECT string_agg(column_name, ' ') FROM information_schema.columns WHERE table_name = $1`, table).Scan(&columns))
		found := tuples.FindStringSubmatch(source)
		if found == nil || strings.ReplaceAll(found[1], "o.", "n.") != found[2] {
			t.Fatalf("%s: what is compared with what? %q", table, found)
		}
		shown := strings.Split(strings.ReplaceAll(found[2], "n.", ""), ", ")
		for column := range strings.SplitSeq(columns, " ") {
			name := table + "." + column
			_, excepted := unshown[name]
			seen[name] = excepted
			if excepted == slices.Contains(shown, column) {
				t.Errorf("column %s is named in SELECT event_shows(…) in a migration, or has a reason here", name)
			}
		}
	}
	for name := range unshown {
		if !seen[name] {
			t.Errorf("%s does not exist", name)
		}
	}
}
