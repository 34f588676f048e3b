package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// Each statement runs in a lane. The lanes have connections of their own: whatever requests there are,
// they take none of those that keep devices online. The method chooses the lane, by what it is for.
const (
	defaultMaxOpenConns = 16
	// minOpenConns is the least number with which each lane has a connection.
	minOpenConns = 4
	// leaseConns are for leases and pings: one that renews while the other checks.
	leaseConns = 2
	// maxQueuedRequests is the number of statements of requests that wait at a time, and maxRequestWait
	// how long each does. It leaves some of statementTimeout to the statement itself.
	maxQueuedRequests = 512
	maxRequestWait    = 2 * time.Second
)

// lanes are the lanes of a DB.
type lanes struct {
	// requests is for what people and unauthenticated callers ask for. Its connections are shared
	// fairly among sources: see [WithSource].
	requests lane
	// devices is for what keeps control channels, desired state and the database's own upkeep going.
	// Its calls are few, because they share statements or are made one at a time.
	devices lane
	// leases is for leases of replicas and for pings.
	leases lane
}

// newLanes shares out total connections: open opens a pool of a given size. Requests have a pool of their
// own, and so can never hold a connection of the others, not even while it is being given up.
func newLanes(open func(conns int) *sqlx.DB, total int) *lanes {
	system := max(leaseConns+1, total*9/16)
	requests, shared := open(total-system), open(system)
	return &lanes{
		requests: lane{requests, statementTimeout, newTurns(turnOptions{
			conns: total - system, perSource: max(1, (total-system)*3/4), maxWaiting: maxQueuedRequests, maxWait: maxRequestWait,
		})},
		devices: lane{shared, statementTimeout, newTurns(turnOptions{conns: system - leaseConns})},
		leases:  lane{shared, statementTimeout, newTurns(turnOptions{conns: leaseConns})},
	}
}

// lane is a share of the connections. It bounds its statements and transactions. Migrations, which may
// take as long as they need, use the sqlx.DB itself.
type lane struct {
	*sqlx.DB
	timeout time.Duration // statementTimeout, except in tests.
	turns   *turns
}

// bounded returns ctx with the deadline of a statement, unless it has a deadline of its own.
func (l *lane) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, l.timeout)
}

// run calls fn once a connection is free for it, with a bounded context.
func (l *lane) run(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	source := sourceOf(ctx)
	if err := l.turns.acquire(ctx, source); err != nil {
		return err
	}
	defer l.turns.release(source)
	return fn(ctx)
}

func (l *lane) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	return l.run(ctx, func(ctx context.Context) error { return l.DB.GetContext(ctx, dest, query, args...) })
}

func (l *lane) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	return l.run(ctx, func(ctx context.Context) error { return l.DB.SelectContext(ctx, dest, query, args...) })
}

func (l *lane) ExecContext(ctx context.Context, query string, args ...any) (result sql.Result, err error) {
	err = l.run(ctx, func(ctx context.Context) error {
		result, err = l.DB.ExecContext(ctx, query, args...)
		return err
	})
	return result, err
}

// tx runs fn in a transaction, which commits if fn returns nil, with the actor and the claim of ctx. A statement
// by itself has neither: what is in the audit trail, or done once under an idempotency key, changes in a transaction. fn runs again if the transaction is
// aborted by a deadlock, so it must have no effects other than through tx.
func (l *lane) tx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	ctx, cancel := l.bounded(ctx) // All attempts together.
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := l.txOnce(ctx, nil, fn)
		if attempt == txAttempts || !lostDeadlock(err) {
			return err
		}
	}
}

// snapshot runs fn in a read-only transaction whose queries all see the same state.
func (l *lane) snapshot(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return l.txOnce(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, fn)
}

func (l *lane) txOnce(ctx context.Context, options *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	// Statements in fn have the caller's context; that of run bounds them all together.
	return l.run(ctx, func(ctx context.Context) error {
		tx, err := l.BeginTxx(ctx, options)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		// No effect after a commit; after an error or a panic it releases the connection.
		defer func() { _ = tx.Rollback() }()
		committed := func() {}
		if options == nil || !options.ReadOnly {
			if committed, err = makeClaim(ctx, tx); err != nil {
				return err
			}
			if err := setActor(ctx, tx, ActorOf(ctx)); err != nil {
				return err
			}
		}
		if err := fn(tx); err != nil {
			if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
				return ctx.Err() // It ended between two statements, of which the second one only knows that it has.
			}
			return err
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		committed()
		return nil
	})
}
