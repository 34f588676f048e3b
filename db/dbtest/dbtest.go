// Package dbtest provides each test with its own migrated database on a real Postgres.
//
// It uses the server at ECLITUNNEL_TEST_DATABASE_URL, whose user must be allowed to create databases.
// If the variable is not set, the first test of a process starts a private server. A package that uses
// dbtest calls [Main] in its TestMain:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// Without that, its tests are not checked for leaked goroutines, the private server ends with the
// process, and its directory is removed by the next process that needs a server.
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

// limit bounds each step of setup and teardown.
const limit = time.Minute

// Main runs the tests of a package, stops the server they used, and fails if goroutines are left that
// options do not ignore. It does not return.
//
// A test that checks for leaks itself must call [New] or [URL] first, and then goleak with
// goleak.IgnoreCurrent: the private server has a goroutine that runs until the process ends.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(stopAfter{m}, options...)
}

// stopAfter is a goleak.TestingM that stops the server after the tests.
type stopAfter struct{ m *testing.M }

func (s stopAfter) Run() int {
	code := s.m.Run()
	if err := stopServer(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		return max(code, 1)
	}
	return code
}

// New creates an empty migrated database and connects to it. The database is dropped when the test
// ends.
func New(t testing.TB) *db.DB {
	t.Helper()
	return Open(t, URL(t))
}

// URL creates an empty migrated database and returns its URL, for tests that open it several times or
// pass it to a program. The database is dropped when the test ends, even if it has connections.
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
		// The test's context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := server.dropDatabase(ctx, name); err != nil {
			t.Errorf("dbtest: %v", err)
		}
	})
	return server.databaseURL(name)
}

// Open connects to a database of [URL]. It is closed when the test ends.
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
