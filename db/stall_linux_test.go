package db_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// stallLimit is the documented 3 seconds, and what a busy machine adds.
const stallLimit = 4 * time.Second

func TestDB_EveryCallEndsWhileTheServerStalls(t *testing.T) {
	server := dbtest.NewStalling(t)
	d := dbtest.Open(t, server.URL)
	check(t, d.RenewLease(t.Context(), uuid.New(), time.Minute)) // One connection is in the pool.
	user := createUser(t, d, "a@example.com")
	server.Stop()
	canceled, cancel := context.WithCancel(t.Context())
	late := time.AfterFunc(100*time.Millisecond, cancel)
	defer late.Stop()

	var calls sync.WaitGroup
	call := func(name string, f func() error) {
		calls.Go(func() {
			started := time.Now()
			err := f()
			if took := time.Since(started); took > stallLimit {
				t.Errorf("%s took %v", name, took)
			}
			if !db.Unavailable(err) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range 8 { // More than the pool has connections.
		call("ping", func() error { return d.Ping(t.Context()) })
		call("read", func() error { _, err := d.SigningKeys(t.Context()); return err })
		call("write", func() error { return d.RenewLease(t.Context(), uuid.New(), time.Minute) })
		call("transaction", func() error {
			_, _, err := d.Maintain(t.Context(), db.Maintenance{})
			return err
		})
		// These share statements.
		id := uuid.New()
		call("shared settings", func() error { _, err := d.Settings(t.Context()); return err })
		call("shared device", func() error { _, err := d.DeviceByID(t.Context(), id); return err })
		call("shared channels", func() error { _, err := d.Channels(t.Context(), []uuid.UUID{id}); return err })
		call("shared state", func() error { _, err := d.ClientState(t.Context(), id); return err })
		call("shared connect", func() error { _, err := d.Connect(t.Context(), id, db.Hello{}); return err })
		call("shared disconnect", func() error { return d.Disconnect(t.Context(), id, 1, "") })
		call("shared reports", func() error { return d.SaveReports(t.Context(), id, db.KindClient, nil) })
		call("caller that leaves", func() error { _, err := d.UserByEmail(canceled, "a@example.com"); return err })
	}
	calls.Wait()

	server.Continue()
	// Connections that were given up are not used again.
	for range 20 {
		got, err := d.UserByEmail(t.Context(), "a@example.com")
		check(t, err)
		if got.ID != user {
			t.Fatalf("got user %d, want %d", got.ID, user)
		}
	}
}

func TestDB_AServerThatStallsWithinATransactionEndsIt(t *testing.T) {
	server := dbtest.NewStalling(t)
	d := dbtest.Open(t, server.URL)
	createUser(t, d, "a@example.com")
	started := time.Now()
	err := d.InTransaction(t.Context(), func(again func() error) error {
		check(t, again())
		server.Stop()
		started = time.Now()
		return again() // Like the rest of a transaction, with the caller's own context.
	})
	if took := time.Since(started); took > stallLimit || !db.Unavailable(err) {
		t.Errorf("statement: %v after %v", err, took)
	}
	server.Continue()
	err = d.InTransaction(t.Context(), func(again func() error) error {
		check(t, again())
		server.Stop()
		started = time.Now()
		return nil // Its commit stalls.
	})
	if took := time.Since(started); took > stallLimit || !db.Unavailable(err) {
		t.Errorf("commit: %v after %v", err, took)
	}
	server.Continue()
	if _, err := d.UserByEmail(t.Context(), "a@example.com"); err != nil {
		t.Error(err)
	}
}

// A context that ends after its statement concerns no later one.
func TestDB_EndedContextsDoNotCostConnections(t *testing.T) {
	d := dbtest.New(t)
	pid := func() (pid int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		check(t, d.InTransaction(ctx, func(again func() error) error { return again() }))
		pid, err := d.BackendPID(ctx)
		check(t, err)
		return pid
	}
	first := pid()
	for range 50 {
		if got := pid(); got != first {
			t.Fatalf("connection %d was replaced by %d", first, got)
		}
	}
}
