package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestCommands_FindADatabaseAndNeverCreateOne(t *testing.T) {
	empty := dbtest.URL(t)
	_, err := dbtest.SQL(t, dbtest.Open(t, empty)).ExecContext(t.Context(), `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "panel")
	for name, where := range map[string]map[string]string{
		"no directory":    {"ECLITUNNEL_DATA_DIR": missing},
		"empty directory": {"ECLITUNNEL_DATA_DIR": t.TempDir()},
		"empty database":  {"ECLITUNNEL_DATABASE_URL": empty},
	} {
		for _, args := range [][]string{
			{"admin", "create", "--email", "admin@example.com", "--password-file", "-"},
			{"device", "create", "--kind", "server", "--name", "edge-1", "--public-host", "edge-1.example.com"},
			{"keys", "list"},
			{"keys", "revoke", "--all"},
			{"keys", "revoke", "KEY"},
			{"migrate"},
		} {
			if args[0] == "migrate" && where["ECLITUNNEL_DATABASE_URL"] != "" {
				continue // It is there to fill it.
			}
			t.Run(name+" "+strings.Join(args[:min(2, len(args))], " "), func(t *testing.T) {
				for name, value := range where {
					t.Setenv(name, value)
				}
				code, stdout, stderr := call(t, "correct horse battery\n", args...)
				if code != exitFailed || stdout != "" || !strings.Contains(stderr, "there is no database of a panel in ") {
					t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
				}
				if dir := where["ECLITUNNEL_DATA_DIR"]; dir != "" {
					if entries, err := os.ReadDir(dir); len(entries) > 0 || (dir == missing) != os.IsNotExist(err) {
						t.Errorf("%v, %v", entries, err)
					}
				}
			})
		}
	}
}

func TestDefaultDataDir_IsNotTheAgentsUnlessADatabaseIsThere(t *testing.T) {
	for name, test := range map[string]struct {
		databases []string
		want      string
	}{
		"none":         {nil, "eclitunneld"},
		"its own":      {[]string{"eclitunneld"}, "eclitunneld"},
		"a former one": {[]string{"eclitunnel"}, "eclitunnel"},
		"both":         {[]string{"eclitunnel", "eclitunneld"}, "eclitunneld"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			for _, dir := range test.databases {
				if err := os.MkdirAll(filepath.Join(state, dir, "cluster"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if got := panelDir(state); got != filepath.Join(state, test.want) {
				t.Errorf("got %s", got)
			}
		})
	}
}
