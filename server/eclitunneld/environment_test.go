package main

import (
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/db/postgres"
)

// hostileEnvironment sets variables of libpq that lead to another database and that break every
// connection which minds them.
func hostileEnvironment(t *testing.T, decoy string) {
	t.Helper()
	u, err := url.Parse(decoy)
	if err != nil {
		t.Fatal(err)
	}
	service := file(t, "[prod]\nhost="+u.Query().Get("host")+"\nport="+u.Query().Get("port")+
		"\ndbname="+u.Path[1:]+"\nuser="+u.User.Username()+"\n")
	for name, value := range map[string]string{
		"PGSERVICEFILE": service, "PGSERVICE": "prod",
		"PGHOST": "/nowhere", "PGPORT": "1", "PGDATABASE": "template1", "PGUSER": "nobody-at-all",
		"PGOPTIONS": "-c default_transaction_read_only=on", "PGSSLMODE": "verify-full", "PGREQUIRESSL": "1",
		"PGDATA": "/nowhere", "PGTZ": "Nowhere/AtAll", "PGCONNECT_TIMEOUT": "soon",
	} {
		t.Setenv(name, value)
	}
}

func TestCommands_WorkOnTheirOwnDatabaseWhateverTheEnvironmentSays(t *testing.T) {
	target, decoy := dbtest.URL(t), dbtest.URL(t)
	dir, err := os.MkdirTemp("", "eclitunneld-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	made, err := postgres.Start(t.Context(), postgres.Options{DataDir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, variables := range map[string]map[string]string{
		"a URL":        {"ECLITUNNEL_DATABASE_URL": target},
		"a URL's file": {"ECLITUNNEL_DATABASE_URL_FILE": file(t, target)},
		"its own":      {"ECLITUNNEL_DATA_DIR": filepath.Join(dir, "data")},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range variables {
				t.Setenv(name, value)
			}
			for _, args := range [][]string{
				{"migrate"},
				{"admin", "create", "--email", rand.Text() + "@example.com", "--password-file", "-"},
				{"device", "create", "--kind", "server", "--name", "edge-1", "--public-host", "edge-1.example.com"},
				{"keys", "list"},
			} {
				hostileEnvironment(t, decoy)
				code, stdout, stderr := call(t, "correct horse battery\n", append(args, "--log-level", "error")...)
				if code != exitOK {
					t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
				}
			}
		})
	}
	if admin, err := dbtest.Open(t, decoy).HasAdmin(t.Context()); err != nil || admin {
		t.Errorf("the other database has an admin: %t, %v", admin, err)
	}
}
