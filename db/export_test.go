package db

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// MigrateDown reverts every migration.
func (d *DB) MigrateDown(ctx context.Context) error { return d.MigrateDownTo(ctx, 0) }

// MigrateDownTo reverts every migration after a version.
func (d *DB) MigrateDownTo(ctx context.Context, version int64) error {
	provider, err := d.migrator()
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, version)
	return err
}

// SpeedUpListener shortens the time in which the listener detects a silent peer.
func (d *DB) SpeedUpListener() {
	d.listen.ping, d.listen.silence = 50*time.Millisecond, 300*time.Millisecond
}

// InTransaction runs fn in a transaction. again reads something in it, with ctx.
func (d *DB) InTransaction(ctx context.Context, fn func(again func() error) error) error {
	return d.requests.tx(ctx, func(tx *sqlx.Tx) error {
		return fn(func() error {
			var one int
			return tx.GetContext(ctx, &one, `SELECT 1`)
		})
	})
}

// BackendPID is the process of the server that serves a connection of the pool.
func (d *DB) BackendPID(ctx context.Context) (pid int, err error) {
	err = d.requests.GetContext(ctx, &pid, `SELECT pg_backend_pid()`)
	return pid, err
}

// SetStatementTimeout changes how long a statement may take. It must be called while d is idle.
func (d *DB) SetStatementTimeout(timeout time.Duration) {
	for _, lane := range []*lane{&d.requests, &d.devices, &d.leases} {
		lane.timeout = timeout
	}
}

// Waiting is the number of connects and of clients' reports that wait for their batch.
func (d *DB) Waiting() (connects, reports int) {
	return d.batches.connects.Waiting(), d.batches.clientReports.Waiting()
}

// SetRequestWait changes how long a request waits for a connection. It must be called while d is idle.
func (d *DB) SetRequestWait(wait time.Duration) { d.requests.turns.options.maxWait = wait }

// HoldDevices makes n calls that hold or wait for the connections of devices until release is called.
func (d *DB) HoldDevices(ctx context.Context, n int) (release func()) {
	ctx, cancel := context.WithCancel(ctx)
	var calls, held sync.WaitGroup
	held.Add(d.devices.turns.options.conns)
	var count atomic.Int64
	for range n {
		calls.Go(func() {
			_ = d.devices.tx(ctx, func(*sqlx.Tx) error {
				if count.Add(1) <= int64(d.devices.turns.options.conns) {
					held.Done()
				}
				<-ctx.Done()
				return nil
			})
		})
	}
	held.Wait()
	return func() {
		cancel()
		calls.Wait()
	}
}

// The queries of [DB.Sessions] and [DB.Users], for their plans, and what the latter is given besides the search.
const (
	SessionsQuery = sessionsQuery
	UsersQuery    = usersQuery
	LastCharacter = lastCharacter
)

// The queries of the lists of organisations and members, for their plans.
const (
	AllOrganisationsQuery = allOrganisationsQuery
	OwnOrganisationsQuery = ownOrganisationsQuery
	MembersQuery          = membersQuery
)

// The queries of the lists of devices and allocations, for their plans.
func DevicesQuery(scope Scope) string     { return devicesQuery(scope) }
func AllocationsQuery(scope Scope) string { return allocationsQuery(scope) }
func (s Scope) Args(more ...any) []any    { return s.args(more...) }

// The queries of quotas, for their plans.
var (
	UserQuotaQuery         = userQuotaQuery
	OrganisationQuotaQuery = organisationQuotaQuery
	UserUsageQuery         = usageOf("owner_id", "$1")
	OrganisationUsageQuery = usageOf("organisation_id", "$1")
)

// The queries of [DB.APIKeyByHash] and [DB.APIKeys], for their plans.
const (
	APIKeyQuery  = apiKeyQuery
	APIKeysQuery = apiKeysQuery
)

// AuditQuery is the query of [DB.Audit], for its plan.
var AuditQuery = auditQuery

// AppendEvents appends events in a transaction.
func (d *DB) AppendEvents(ctx context.Context, events ...NewEvent) error {
	return d.devices.tx(ctx, func(tx *sqlx.Tx) error { return appendEvents(ctx, tx, events...) })
}

// ExecInTransaction runs fn in a transaction, again after a deadlock as every transaction. exec runs a statement in it.
func (d *DB) ExecInTransaction(ctx context.Context, fn func(exec func(query string, args ...any) error) error) error {
	return d.devices.tx(ctx, func(tx *sqlx.Tx) error {
		return fn(func(query string, args ...any) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
	})
}

// FindAllocationsQuery is the query of FindAllocations.
func FindAllocationsQuery(scope Scope, filter AllocationFilter, l Listing) (string, []any, error) {
	return findAllocationsQuery(scope, filter, l)
}
