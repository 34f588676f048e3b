//go:build unix

package postgres_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

func TestStart_MendsATimeZoneThatIsGone(t *testing.T) {
	t.Setenv("TZ", "Europe/Berlin")
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	server := start(t, options)
	if got := query(t, server.URL(), `SHOW timezone`); got != "GMT" {
		t.Errorf("a new cluster is in %s", got)
	}
	query(t, server.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	stop(t, server)
	path := filepath.Join(dir, "cluster", "postgresql.conf")
	content, err := os.ReadFile(path)
	check(t, err)
	for _, line := range []string{
		"timezone = 'Mars/Olympus'", "TimeZone='Mars/Olympus' # by initdb", "timezone Mars/Olympus", "log_timezone = 'Mars/Olympus'",
	} {
		broken := append(regexp.MustCompile(`(?m)^(log_)?timezone.*$`).ReplaceAll(content, nil), "\n"+line+"\n"...)
		check(t, os.WriteFile(path, broken, 0o600))
		server := start(t, options)
		if got := query(t, server.URL(), `SELECT x FROM kept WHERE current_setting('timezone') = 'GMT' AND current_setting('log_timezone') = 'GMT'`); got != "data" {
			t.Errorf("%s: %q", line, got)
		}
		stop(t, server)
	}
}
