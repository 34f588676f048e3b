// Package dbtest gives each test a migrated database of its own, on a real Postgres.
//
// The server is that of ECLITUNNEL_TEST_DATABASE_URL, whose user must be allowed to create
// databases, or else a private one that the first test of a process starts. A package that uses
// dbtest hands its TestMain to [Main]:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// Without that its tests work too, but are not checked for leaked goroutines, and the private server
// is ended by the death of the process and its directory removed by the next that needs a server.
package dbtest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/db"
)

// limit bounds each step of setting up or tearing down.
const limit = time.Minute

// Main runs the tests of a package, stops the server they used, and fails if goroutines are left;
// options except those that may be. It does not return.
//
// A single test that checks for leaks by itself calls [New] or [URL] first, and then goleak with
// goleak.IgnoreCurrent: the private server has a goroutine that lives until the end of the process.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(stopAfter{m}, options...)
}

// stopAfter is a goleak.TestingM that leaves no server running.
type stopAfter struct{ m *testing.M }

func (s stopAfter) Run() int {
	code := s.m.Run()
	if err := stopServer(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		return max(code, 1)
	}
	return code
}

// New returns a database of the test's own, migrated and empty. It ends with the test.
func New(t testing.TB) *db.DB {
	t.Helper()
	return Open(t, URL(t))
}

// URL returns the URL of a database of the test's own, migrated and empty, for tests that open it
// several times or hand it to a program. It ends with the test, whoever is still connected.
func URL(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server, err := sharedServer(ctx)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	name, err := server.createDatabase(ctx)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(func() {
		// The test's context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := server.dropDatabase(ctx, name); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	return server.databaseURL(name)
}

// Open connects to a database of [URL]. The connection ends with the test.
func Open(t testing.TB, url string) *db.DB {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	d, err := db.Open(ctx, db.Options{URL: url})
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	opened.Store(d, url)
	t.Cleanup(func() {
		opened.Delete(d)
		if err := d.Close(); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	return d
}
