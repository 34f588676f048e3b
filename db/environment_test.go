package db_test

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// decoyService returns a service file whose service decoy leads to another database.
func decoyService(t *testing.T, decoy string) string {
	t.Helper()
	u, err := url.Parse(decoy)
	check(t, err)
	content := "[decoy]\nhost=" + u.Query().Get("host") + "\nport=" + u.Query().Get("port") +
		"\ndbname=" + u.Path[1:] + "\nuser=" + u.User.Username() + "\n"
	path := filepath.Join(t.TempDir(), "pg_service.conf")
	check(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestOpen_EnvironmentChangesNothing(t *testing.T) {
	target, decoy := dbtest.URL(t), dbtest.URL(t)
	if u, err := url.Parse(target); err != nil || u.Query().Get("host") == "" {
		t.Skip("needs a server that is reached by a socket")
	}
	service := decoyService(t, decoy)
	none := filepath.Join(t.TempDir(), "none")
	for name, variables := range map[string]map[string]string{
		"service":             {"PGSERVICE": "decoy", "PGSERVICEFILE": service},
		"unknown service":     {"PGSERVICE": "missing", "PGSERVICEFILE": service},
		"no service file":     {"PGSERVICE": "decoy", "PGSERVICEFILE": none},
		"host":                {"PGHOST": none},
		"address":             {"PGHOSTADDR": "192.0.2.1"},
		"port":                {"PGPORT": "1"},
		"malformed port":      {"PGPORT": "x"},
		"database":            {"PGDATABASE": "template1"},
		"user":                {"PGUSER": "nobody-at-all"},
		"options":             {"PGOPTIONS": "-c default_transaction_read_only=on"},
		"malformed options":   {"PGOPTIONS": "-c no_such_setting=1"},
		"TLS":                 {"PGSSLMODE": "verify-full"},
		"malformed TLS":       {"PGSSLMODE": "x", "PGSSLNEGOTIATION": "x", "SSLPGMINPROTOCOLVERSION": "x"},
		"target":              {"PGTARGETSESSIONATTRS": "standby"},
		"encoding":            {"PGCLIENTENCODING": "LATIN1"},
		"date style":          {"PGDATESTYLE": "German"},
		"time zone":           {"PGTZ": "Nowhere/AtAll"},
		"timeout":             {"PGCONNECT_TIMEOUT": "x"},
		"unsupported by pq":   {"PGREQUIRESSL": "1", "PGSSLCRL": none, "PGGSSENCMODE": "disable", "PGREQUIREPEER": "x"},
		"password and a file": {"PGPASSWORD": "wrong", "PGPASSFILE": none},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range variables {
				t.Setenv(variable, value)
			}
			d := dbtest.Open(t, target)
			check(t, d.Migrate(t.Context()))
			createUser(t, d, name+"@example.com")
			_, err := d.Listen(t.Context()) // It connects by itself.
			check(t, err)
		})
	}
	var users int
	check(t, dbtest.SQL(t, dbtest.Open(t, decoy)).QueryRowContext(t.Context(), `SELECT count(*) FROM users`).Scan(&users))
	if users != 0 {
		t.Errorf("%d users are in the other database", users)
	}
}

func TestOpen_EnvironmentFillsGaps(t *testing.T) {
	target := dbtest.URL(t)
	t.Setenv("PGSERVICEFILE", decoyService(t, target))
	t.Setenv("PGSERVICE", "missing")
	d, err := db.Open(t.Context(), db.Options{URL: "service=decoy"})
	check(t, err)
	check(t, d.Close())
}
