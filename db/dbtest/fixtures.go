package dbtest

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db"
)

// opened maps each *db.DB of Open to its URL, for fixtures that package db cannot create.
var opened sync.Map

// Organisation creates an organisation and returns its id. d is from [New] or [Open].
func Organisation(t testing.TB, d *db.DB, name string) int64 {
	t.Helper()
	var id int64
	row := SQL(t, d).QueryRowContext(t.Context(), `INSERT INTO organisations (name) VALUES ($1) RETURNING id`, name)
	if err := row.Scan(&id); err != nil {
		t.Fatalf("dbtest: create organisation: %v", err)
	}
	return id
}

// Member adds a user to an organisation as "owner", "admin" or "member". d is from [New] or [Open].
func Member(t testing.TB, d *db.DB, organisation, user int64, role string) {
	t.Helper()
	_, err := SQL(t, d).ExecContext(t.Context(),
		`INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, $3)`, organisation, user, role)
	if err != nil {
		t.Fatalf("dbtest: add member: %v", err)
	}
}

// SQL returns a pool of connections to the database of d, which is from [New] or [Open], for tests that
// bypass package db. It is closed when the test ends.
func SQL(t testing.TB, d *db.DB) *sql.DB {
	t.Helper()
	url, ok := opened.Load(d)
	if !ok {
		t.Fatal("dbtest: this database was not opened by New or Open")
	}
	connector, err := pq.NewConnector(url.(string))
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	connections := sql.OpenDB(connector)
	t.Cleanup(func() { _ = connections.Close() })
	return connections
}
