package db_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// benchmarkClients is how many tunnel clients a benchmark has. Each has one allocation.
const benchmarkClients = 2000

// BenchmarkEvents measures what the log of events costs: each operation in turn with it, and in another database
// without its triggers. It reports the medians of both, and their ratio, which means more than they do on a machine that
// is busy with something else.
func BenchmarkEvents(b *testing.B) {
	logged, unlogged := newBenchFleet(b), newBenchFleet(b)
	unlogged.withoutLog()
	for _, operation := range []struct {
		name string
		do   func(f *benchFleet, n int)
	}{
		// From offline, as when the leases have expired.
		{"2000ClientsConnect", func(f *benchFleet, n int) { f.connect(n) }},
		// From a panel that was killed, before its lease expires.
		{"2000ClientsMove", func(f *benchFleet, n int) { f.connect(n) }},
		{"2000ClientsReport", func(f *benchFleet, n int) { f.report(n) }},
		{"ClientConnects", func(f *benchFleet, n int) { f.connectOne(0, n) }},
		{"ClientReports", func(f *benchFleet, n int) { f.reportOne(0, n) }},
		{"AllocationIsCreated", func(f *benchFleet, _ int) { f.create() }},
	} {
		b.Run(operation.name, func(b *testing.B) {
			var times [2][]time.Duration
			for n := 0; b.Loop(); n++ {
				for i, f := range []*benchFleet{logged, unlogged} {
					b.StopTimer()
					f.prepare(operation.name)
					b.StartTimer()
					started := time.Now()
					operation.do(f, n)
					times[i] = append(times[i], time.Since(started))
				}
			}
			var medians [2]float64
			for i := range times {
				slices.Sort(times[i])
				medians[i] = times[i][len(times[i])/2].Seconds() * 1000
			}
			b.ReportMetric(medians[0], "ms-logged")
			b.ReportMetric(medians[1], "ms-unlogged")
			b.ReportMetric(medians[0]/medians[1], "ratio")
		})
	}
}

// benchFleet is a tunnel server, and clients with an allocation on it each.
type benchFleet struct {
	b           *testing.B
	ctx         context.Context
	d           *db.DB
	sql         *sql.DB
	server      uuid.UUID
	replicas    [2]uuid.UUID
	clients     []uuid.UUID
	allocations []int64
}

func newBenchFleet(b *testing.B) *benchFleet {
	b.Helper()
	d := dbtest.New(b)
	f := &benchFleet{b: b, ctx: b.Context(), d: d, sql: dbtest.SQL(b, d)}
	for i := range f.replicas {
		f.replicas[i] = uuid.New()
		f.check(d.RenewLease(f.ctx, f.replicas[i], time.Hour))
	}
	f.check(f.sql.QueryRowContext(f.ctx, `INSERT INTO devices (name, kind, created_at, expires_at, approved_at, public_host, port_first, port_last)
		VALUES ('server', 'server', now(), now(), now(), 'play.example.com', 10000, 20000) RETURNING id`).Scan(&f.server))
	_, err := f.sql.ExecContext(f.ctx, `INSERT INTO devices (name, kind, created_at, expires_at, approved_at)
		SELECT 'client ' || n, 'client', now(), now(), now() FROM generate_series(1, $1) AS n`, benchmarkClients)
	f.check(err)
	_, err = f.sql.ExecContext(f.ctx, `INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
		SELECT id, $1, 'tcp', 9999 + row_number() OVER (), '127.0.0.1', 25565, '', 'none', 60 FROM devices WHERE kind = 'client'`, f.server)
	f.check(err)
	rows, err := f.sql.QueryContext(f.ctx, `SELECT device_id, id FROM allocations ORDER BY id`)
	f.check(err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var client uuid.UUID
		var allocation int64
		f.check(rows.Scan(&client, &allocation))
		f.clients, f.allocations = append(f.clients, client), append(f.allocations, allocation)
	}
	f.check(rows.Err())
	_, err = f.sql.ExecContext(f.ctx, `ANALYZE`)
	f.check(err)
	return f
}

func (f *benchFleet) check(err error) {
	f.b.Helper()
	if err != nil {
		f.b.Fatal(err)
	}
}

// withoutLog disables the triggers of the log.
func (f *benchFleet) withoutLog() {
	for _, table := range []string{"devices", "allocations"} {
		for _, trigger := range []string{"event_insert", "event_update", "event_delete"} {
			_, err := f.sql.ExecContext(f.ctx, fmt.Sprintf(`ALTER TABLE %s DISABLE TRIGGER %s`, table, trigger))
			f.check(err)
		}
	}
}

// prepare makes the state from which an operation starts, with no time and no events of its own.
func (f *benchFleet) prepare(operation string) {
	switch operation {
	case "2000ClientsConnect":
		_, err := f.sql.ExecContext(f.ctx, `SET session_replication_role = replica; UPDATE devices SET replica_id = NULL;
			UPDATE allocations SET client_state = 'ready'; RESET session_replication_role`)
		f.check(err)
	case "2000ClientsMove":
		_, err := f.sql.ExecContext(f.ctx, `SET session_replication_role = replica;
			UPDATE allocations SET client_state = 'ready'; RESET session_replication_role`)
		f.check(err)
	}
}

// all runs one call for each client at the same time.
func (f *benchFleet) all(call func(i int)) {
	var calls sync.WaitGroup
	for i := range f.clients {
		calls.Go(func() { call(i) })
	}
	calls.Wait()
}

func (f *benchFleet) connect(n int) { f.all(func(i int) { f.connectOne(i, n) }) }

func (f *benchFleet) report(n int) { f.all(func(i int) { f.reportOne(i, n) }) }

// connectOne connects to another replica than that with the number before.
func (f *benchFleet) connectOne(i, n int) {
	hello := db.Hello{ReplicaID: f.replicas[n%2], AgentVersion: "1.0", Platform: "linux/amd64"}
	if _, err := f.d.Connect(f.ctx, f.clients[i], hello); err != nil {
		f.b.Error(err)
	}
}

// reportOne reports another state than that with the number before.
func (f *benchFleet) reportOne(i, n int) {
	state := []string{db.StateReady, db.StateFailed}[n%2]
	if err := f.d.SaveReports(f.ctx, f.clients[i], db.KindClient, []db.Report{{AllocationID: f.allocations[i], State: state}}); err != nil {
		f.b.Error(err)
	}
}

func (f *benchFleet) create() {
	made, err := f.d.CreateAllocations(f.ctx, newAllocation(f.clients[0], &f.server, "tcp"))
	f.check(err)
	f.check(f.d.DeleteAllocation(f.ctx, everything, made[0].ID))
}
