package db_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestMigrate_SeveralReplicasAtOnce(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	check(t, d.MigrateDown(t.Context()))
	var replicas sync.WaitGroup
	for range 3 {
		replica := dbtest.Open(t, url)
		replicas.Go(func() {
			if err := replica.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	replicas.Wait()
	if _, err := d.Settings(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestMigrate_DownLeavesNothingAndUpWorksAgain(t *testing.T) {
	d := dbtest.New(t)
	check(t, d.MigrateDown(t.Context()))
	var left int
	row := dbtest.SQL(t, d).QueryRowContext(t.Context(),
		`SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'public' AND c.relkind IN ('r', 'v', 'S') AND c.relname NOT LIKE 'goose%'`)
	check(t, row.Scan(&left))
	if left != 0 {
		t.Errorf("%d tables or sequences are left", left)
	}
	check(t, d.Migrate(t.Context()))
	check(t, d.Migrate(t.Context()))
	createUser(t, d, "a@example.com")
}

// TestMigrate_StandsInNobodysWay migrates while a transaction of a running replica has locked one table and is
// about to lock another: it waits for none while it holds one.
func TestMigrate_StandsInNobodysWay(t *testing.T) {
	for _, tables := range [][2]string{
		{"settings", "devices"}, {"devices", "settings"}, {"organisations", "devices"}, {"users", "devices"}, {"sessions", "users"},
	} {
		t.Run(strings.Join(tables[:], " before "), func(t *testing.T) {
			url := dbtest.URL(t)
			d := dbtest.Open(t, url)
			check(t, d.MigrateDownTo(t.Context(), 15))
			connections := dbtest.SQL(t, d)
			tx, err := connections.BeginTx(t.Context(), nil)
			check(t, err)
			defer func() { _ = tx.Rollback() }()
			// Before deadlocks are looked for, after a second.
			for _, statement := range []string{`SET LOCAL statement_timeout = '800ms'`, `LOCK TABLE ` + tables[0] + ` IN ROW EXCLUSIVE MODE`} {
				_, err = tx.ExecContext(t.Context(), statement)
				check(t, err)
			}
			migrated := make(chan error, 1)
			go func() { migrated <- d.Migrate(t.Context()) }()
			waiting(t, d, 1)
			if _, err = tx.ExecContext(t.Context(), `LOCK TABLE `+tables[1]+` IN ROW EXCLUSIVE MODE`); err != nil {
				t.Errorf("the transaction could not go on: %v", err)
			}
			_ = tx.Commit()
			check(t, <-migrated)
		})
	}
}

func TestOpen_KeyValueDSN(t *testing.T) {
	config, err := pq.NewConfig(dbtest.URL(t))
	check(t, err)
	dsn := "host=" + config.Host + " user=" + config.User + " dbname=" + config.Database +
		" password='" + config.Password + "' sslmode=" + string(config.SSLMode)
	d := dbtest.Open(t, dsn)
	check(t, d.Ping(t.Context()))
}

func TestOpen_MalformedURLKeepsPasswordSecret(t *testing.T) {
	for _, malformed := range []string{
		"postgres://panel:pa/ss:word@db.example.com/panel",
		"host=db.example.com password=pa ss:word user=panel",
	} {
		_, err := db.Open(t.Context(), db.Options{URL: malformed})
		if err == nil || strings.Contains(err.Error(), "ss:word") || !strings.Contains(err.Error(), "malformed") {
			t.Fatalf("got error %v", err)
		}
	}
	_, err := db.Open(t.Context(), db.Options{})
	if err == nil {
		t.Fatal("an empty URL was accepted")
	}
}

func TestUnavailable(t *testing.T) {
	t.Run("no server at the address", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		address := listener.Addr().String()
		check(t, listener.Close())
		_, err = db.Open(t.Context(), db.Options{URL: "postgres://u@" + address + "/x?sslmode=disable"})
		if !db.Unavailable(err) {
			t.Errorf("Unavailable(%v) = false", err)
		}
	})
	t.Run("no socket", func(t *testing.T) {
		_, err := db.Open(t.Context(), db.Options{URL: "postgres://u@/x?host=" + filepath.Join(t.TempDir(), "none")})
		if !db.Unavailable(err) {
			t.Errorf("Unavailable(%v) = false", err)
		}
	})
	t.Run("deadline exceeded", func(t *testing.T) {
		d := dbtest.New(t)
		ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		if _, err := d.Settings(ctx); !db.Unavailable(err) {
			t.Errorf("Unavailable(%v) = false", err)
		}
	})
	t.Run("session ended by the server", func(t *testing.T) {
		for _, code := range []pqerror.Code{pqerror.AdminShutdown, pqerror.ConnectionFailure, pqerror.TooManyConnections, pqerror.ReadOnlySQLTransaction} {
			if !db.Unavailable(&pq.Error{Code: code}) {
				t.Errorf("Unavailable(%s) = false", code)
			}
		}
	})
	t.Run("rejected statements are not", func(t *testing.T) {
		for _, err := range []error{nil, db.ErrNotFound, db.ErrConflict, context.Canceled, &pq.Error{Code: "42601"}, errors.New("x")} {
			if db.Unavailable(err) {
				t.Errorf("Unavailable(%v) = true", err)
			}
		}
	})
}

// During a failover the address may still lead to a standby.
func TestDB_LeavesAServerThatAcceptsNoWrites(t *testing.T) {
	url := dbtest.URL(t)
	d := dbtest.Open(t, url)
	config, err := pq.NewConfig(url)
	check(t, err)
	config.Runtime = map[string]string{"default_transaction_read_only": "off"}
	connector, err := pq.NewConnectorConfig(config)
	check(t, err)
	admin := sql.OpenDB(connector)
	defer admin.Close()
	alter := func(what string) {
		t.Helper()
		_, err := admin.ExecContext(t.Context(), `ALTER DATABASE `+pq.QuoteIdentifier(config.Database)+` `+what)
		check(t, err)
	}
	write := func() error {
		_, err := d.Take(t.Context(), "key", 1, time.Minute, noon)
		return err
	}

	alter("SET default_transaction_read_only = on")
	terminateOthers(t, d, "") // As when the former primary stops.
	if err := d.Ping(t.Context()); !db.Unavailable(err) {
		t.Errorf("ping: %v", err)
	}
	if err := write(); !db.Unavailable(err) {
		t.Errorf("write: %v", err)
	}
	alter("RESET default_transaction_read_only")
	check(t, d.Ping(t.Context()))
	check(t, write())
}

// The pool must recover after the server has closed all its connections.
func TestDB_SurvivesLostConnections(t *testing.T) {
	d := dbtest.New(t)
	check(t, d.Ping(t.Context()))
	terminateOthers(t, d, "")
	check(t, d.Ping(t.Context()))
}

// terminateOthers terminates the database's other sessions whose last query starts with the text, waits
// until they have ended, and returns their number.
func terminateOthers(t *testing.T, d *db.DB, query string) int {
	t.Helper()
	var ended int
	row := dbtest.SQL(t, d).QueryRowContext(t.Context(),
		`SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE $1 || '%'`, query)
	check(t, row.Scan(&ended))
	return ended
}
