package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func countRows(t testing.TB, d *db.DB, table string) (n int) {
	t.Helper()
	if err := dbtest.SQL(t, d).QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPruneUsage_KeepsEachForItsTime(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	now := time.Now()
	for _, table := range []string{"usage_minutes", "usage_hours", "usage_days"} {
		if _, err := sql.ExecContext(t.Context(), `INSERT INTO `+table+` SELECT 1, now() - n * interval '12 hours', 1, 1, 1, 1, 1, 1 FROM generate_series(1, 2000) n`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.UpdateSettings(t.Context(), db.SettingsPatch{Usage: db.UsageRetentionPatch{Hours: ptr(10)}}); err != nil {
		t.Fatal(err)
	}
	for deleted := int64(1); deleted > 0; {
		var err error
		if deleted, err = d.PruneUsage(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	for table, want := range map[string]int{"usage_minutes": 4, "usage_hours": 20, "usage_days": 1462} {
		if n := countRows(t, d, table); n < want-1 || n > want {
			t.Errorf("%d rows are kept of %s, want %d", n, table, want)
		}
	}
}

func TestPruneUsageSubjects_KeepsThoseOfWhichSomethingIsCounted(t *testing.T) {
	d := dbtest.New(t)
	sql := dbtest.SQL(t, d)
	exec := func(statement string) {
		t.Helper()
		_, err := sql.ExecContext(t.Context(), statement)
		check(t, err)
	}
	// More than one call looks at.
	exec(`INSERT INTO usage_subjects (allocation_id, device_id, owner_id, organisation_id) SELECT n, gen_random_uuid(), 0, 0 FROM generate_series(1, 25000) n`)
	for table, allocation := range map[string]int{"usage_minutes": 1, "usage_hours": 20_000, "usage_days": 25_000} {
		exec(fmt.Sprintf(`INSERT INTO %s SELECT id, now(), 1, 1, 1, 1, 1, 1 FROM usage_subjects WHERE allocation_id = %d`, table, allocation))
	}
	after, calls := int64(0), 0
	for calls == 0 || after != 0 {
		var err error
		after, err = d.PruneUsageSubjects(t.Context(), after)
		check(t, err)
		if calls++; calls == 1 && after == 0 {
			t.Error("one call has looked at everything")
		}
	}
	if n := countRows(t, d, "usage_subjects"); n != 3 || calls != 3 {
		t.Errorf("%d subjects are left after %d calls", n, calls)
	}
}

// TestPruneUsageSubjects_WaitsForReports: a report that has read a subject's id must not count for one that is gone.
func TestPruneUsageSubjects_WaitsForReports(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	id := allocate(t, d, client.ID, server.ID).ID
	report := func(sequence, bytes int64) error {
		return d.AddUsage(t.Context(), server.ID, db.UsageReport{
			Epoch: uuid.UUID{1}, Sequence: sequence, Ended: time.Now(), Seconds: 10,
			Allocations: []db.AllocationUsage{{AllocationID: id, UsageCounts: db.UsageCounts{UploadBytes: bytes}}},
		})
	}
	check(t, report(1, 0)) // Makes the subject, and counts nothing.
	prune := func() error {
		_, err := d.PruneUsageSubjects(t.Context(), 0)
		return err
	}
	check(t, prune())
	if rows, err := d.UsageNow(t.Context(), server.ID, time.Now().Add(-time.Minute)); err != nil || len(rows) != 1 {
		t.Errorf("the newest report is told of as %+v (%v)", rows, err)
	}
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(), `DELETE FROM usage_now`)
	check(t, err)
	// Has the report wait before its last statement.
	tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), `LOCK TABLE usage_minutes IN SHARE MODE`)
	check(t, err)
	reported, pruned := make(chan error, 1), make(chan error, 1)
	go func() { reported <- report(2, 7) }()
	waiting(t, d, 1)
	go func() { pruned <- prune() }()
	waiting(t, d, 2)
	check(t, tx.Rollback())
	check(t, await.Receive(t, reported, "end of the report"))
	check(t, await.Receive(t, pruned, "end of the pruning"))
	rows, err := d.Usage(t.Context(), everything, db.UsageQuery{
		Resolution: db.UsageDays, AllocationID: id, From: time.Now().Add(-48 * time.Hour), To: time.Now(), Limit: 9,
	})
	check(t, err)
	if len(rows) != 1 || rows[0].UploadBytes != 7 {
		t.Errorf("what was reported meanwhile is counted as %+v", rows)
	}
}

func TestAddUsage_TellsOfItsNewestCounts(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
	created, err := d.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: client.ID, ServerID: &server.ID, Protocols: []string{"tcp"}, LocalHost: "127.0.0.1", LocalPort: 1, Count: 1,
		ProxyProtocol: "none", UDPIdleSeconds: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	id, began := created[0].ID, time.Now()
	report := func(sequence int64, ended time.Time, players int) {
		t.Helper()
		err := d.AddUsage(t.Context(), server.ID, db.UsageReport{
			Epoch: uuid.UUID{1}, Sequence: sequence, Ended: ended, Seconds: 10,
			Allocations: []db.AllocationUsage{{AllocationID: id, Players: players, PeakPlayers: 9, UsageCounts: db.UsageCounts{UploadBytes: 7}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	report(1, began, 4)
	report(2, began.Add(-time.Hour), 8) // Late.
	rows, err := d.UsageNow(t.Context(), server.ID, began.Add(-time.Minute))
	if err != nil || len(rows) != 1 || rows[0].AllocationID != id || rows[0].Players != 4 || rows[0].UploadBytes != 7 || rows[0].Seconds != 10 {
		t.Errorf("%+v (%v)", rows, err)
	}
	if players, err := d.Players(t.Context(), []int64{id, id + 1}); err != nil || len(players) != 1 || players[id] != 4 {
		t.Errorf("players %v (%v)", players, err)
	}
	if rows, err = d.UsageNow(t.Context(), server.ID, began.Add(time.Second)); err != nil || len(rows) != 0 {
		t.Errorf("%+v (%v)", rows, err)
	}
}

// TestUsageNow_IsNotOfAPreviousOwner: what was reported before a transfer is no business of the new owner, and the
// previous one sees the allocation no more.
func TestUsageNow_IsNotOfAPreviousOwner(t *testing.T) {
	d := dbtest.New(t)
	ada := createUser(t, d, "ada@example.com")
	guild := dbtest.Organisation(t, d, "guild")
	client, server := enroll(t, d, db.KindClient, &ada), enroll(t, d, db.KindServer, nil)
	id := allocate(t, d, client.ID, server.ID).ID
	report := func(sequence int64) {
		t.Helper()
		check(t, d.AddUsage(t.Context(), server.ID, db.UsageReport{
			Epoch: uuid.UUID{1}, Sequence: sequence, Ended: time.Now(), Seconds: 10,
			Allocations: []db.AllocationUsage{{AllocationID: id, Players: 4, PeakPlayers: 4}},
		}))
	}
	now := func() []db.UsageNow {
		t.Helper()
		rows, err := d.UsageNow(t.Context(), server.ID, time.Now().Add(-time.Minute))
		check(t, err)
		return rows
	}
	report(1)
	if rows := now(); len(rows) != 1 || rows[0].UserID == nil || *rows[0].UserID != ada {
		t.Fatalf("before the transfer: %+v", rows)
	}
	_, err := d.UpdateDevice(t.Context(), db.Scope{All: true}, client.ID, db.DevicePatch{Owner: &db.NewOwner{OrganisationID: &guild}})
	check(t, err)
	if rows := now(); len(rows) != 0 {
		t.Errorf("after the transfer: %+v", rows)
	}
	report(2)
	if rows := now(); len(rows) != 1 || rows[0].OrganisationID == nil || *rows[0].OrganisationID != guild {
		t.Errorf("after the next report: %+v", rows)
	}
}

// TestAddUsage_CountsWhatAPortCarriedBeforeItsAllocationMoved: one that is paused, or has drained, keeps no old port
// on the tunnel server that it leaves, whose last report may still be on its way.
func TestAddUsage_CountsWhatAPortCarriedBeforeItsAllocationMoved(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	for name, enabled := range map[string]bool{"paused": false, "open": true} {
		t.Run(name, func(t *testing.T) {
			a := allocate(t, d, client.ID, servers[0].ID)
			_, err := d.UpdateAllocation(t.Context(), db.Scope{All: true}, a.ID, db.AllocationPatch{Enabled: &enabled})
			check(t, err)
			_, err = d.UpdateAllocation(t.Context(), db.Scope{All: true}, a.ID, db.AllocationPatch{Move: &db.Move{ServerID: servers[1].ID}})
			check(t, err)
			for i, server := range servers {
				check(t, d.AddUsage(t.Context(), server.ID, db.UsageReport{
					Epoch: uuid.New(), Sequence: 1, Ended: time.Now(), Seconds: 10,
					Allocations: []db.AllocationUsage{{AllocationID: a.ID, UsageCounts: db.UsageCounts{UploadBytes: int64(1 + 10*i)}}},
				}))
			}
			rows, err := d.Usage(t.Context(), db.Scope{All: true}, db.UsageQuery{
				Resolution: db.UsageDays, AllocationID: a.ID, From: time.Now().Add(-48 * time.Hour), To: time.Now(), Limit: 9,
			})
			check(t, err)
			var sum int64
			for _, row := range rows {
				sum += row.UploadBytes
			}
			if sum != 12 {
				t.Errorf("%d bytes are counted of 12", sum)
			}
		})
	}
}

// fillUsage makes allocations of clients on a tunnel server, with usage of 90 days: every hour for the first ones.
func fillUsage(b *testing.B, d *db.DB, allocations, byHour int) (server uuid.UUID) {
	b.Helper()
	sql := dbtest.SQL(b, d)
	for _, statement := range []string{
		`INSERT INTO users (email, password_hash, role) VALUES ('ada@example.com', '', 'user')`,
		`INSERT INTO devices (name, kind, created_at, expires_at, approved_at) VALUES ('edge', 'server', now(), now(), now())`,
		fmt.Sprintf(`INSERT INTO devices (name, kind, owner_id, created_at, expires_at, approved_at)
			SELECT 'home', 'client', CASE WHEN n <= %d THEN (SELECT id FROM users) END, now(), now(), now() FROM generate_series(1, %d) n`, byHour, allocations),
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
			SELECT d.id, s.id, 'tcp', row_number() OVER (ORDER BY d.owner_id), 'localhost', 1, '', 'none', 60
			FROM devices d CROSS JOIN (SELECT id FROM devices WHERE kind = 'server') s WHERE d.kind = 'client'`,
		`INSERT INTO usage_subjects (allocation_id, device_id, owner_id, organisation_id)
			SELECT a.id, a.device_id, coalesce(d.owner_id, 0), 0 FROM allocations a JOIN devices d ON d.id = a.device_id ORDER BY a.id`,
		`INSERT INTO usage_days SELECT s.id, t, 1e9, 1e8, 1e6, 1e6, 10, 5
			FROM generate_series(date_trunc('day', now() - interval '90 days'), now(), '1 day') t, usage_subjects s`,
		`INSERT INTO usage_subjects (allocation_id, device_id, owner_id, organisation_id)
			SELECT l, d.id, CASE l WHEN 0 THEN (SELECT id FROM users) ELSE 0 END, 0 FROM devices d, generate_series(-1, 0) l WHERE d.kind = 'server'`,
		`INSERT INTO usage_days SELECT s.id, t, 1e9, 1e8, 1e6, 1e6, 10, 5
			FROM generate_series(date_trunc('day', now() - interval '90 days'), now(), '1 day') t, usage_subjects s WHERE s.allocation_id <= 0`,
		`INSERT INTO usage_hours SELECT s.id, t, 1e9, 1e8, 1e6, 1e6, 10, 5
			FROM generate_series(date_trunc('hour', now() - interval '90 days'), now(), '1 hour') t, usage_subjects s WHERE s.allocation_id = -1`,
		`INSERT INTO usage_hours SELECT s.id, t, 1e8, 1e7, 1e5, 1e5, 1, 5
			FROM generate_series(date_trunc('hour', now() - interval '90 days'), now(), '1 hour') t, usage_subjects s WHERE s.owner_id <> 0`,
		`ANALYZE`,
	} {
		if _, err := sql.ExecContext(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	if err := sql.QueryRowContext(b.Context(), `SELECT id FROM devices WHERE kind = 'server'`).Scan(&server); err != nil {
		b.Fatal(err)
	}
	return server
}

// BenchmarkUsage reads and adds usage where 10,000 allocations have 90 days of days, and 300 of them of hours.
func BenchmarkUsage(b *testing.B) {
	d := dbtest.New(b)
	server := fillUsage(b, d, 10_000, 300)
	var first, owner int64
	if err := dbtest.SQL(b, d).QueryRowContext(b.Context(), `SELECT (SELECT min(id) FROM allocations), (SELECT id FROM users)`).Scan(&first, &owner); err != nil {
		b.Fatal(err)
	}
	to := time.Now()
	query := db.UsageQuery{From: to.AddDate(0, 0, -90), To: to, Limit: 20_001}
	for _, c := range []struct {
		name       string
		scope      db.Scope
		resolution db.UsageResolution
		allocation int64
	}{
		{"of one allocation by hour", db.Scope{UserID: owner}, db.UsageHours, first},
		{"of a user with 300 allocations by hour", db.Scope{UserID: owner}, db.UsageHours, 0},
		{"of a user with 300 allocations by day", db.Scope{UserID: owner}, db.UsageDays, 0},
		{"of all 10000 allocations by hour", db.Scope{All: true}, db.UsageHours, 0},
		{"of all 10000 allocations by day", db.Scope{All: true}, db.UsageDays, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			q := query
			q.Resolution, q.AllocationID = c.resolution, c.allocation
			for b.Loop() {
				if rows, err := d.Usage(b.Context(), c.scope, q); err != nil || len(rows) == 0 {
					b.Fatalf("%d rows (%v)", len(rows), err)
				}
			}
		})
	}
	b.Run("add 1000 allocations", func(b *testing.B) {
		epoch, sequence := uuid.New(), int64(0)
		for b.Loop() {
			sequence++
			report := db.UsageReport{Epoch: epoch, Sequence: sequence, Ended: time.Now(), Seconds: 10}
			for i := range int64(1000) {
				report.Allocations = append(report.Allocations, db.AllocationUsage{
					AllocationID: first + (sequence*1000+i)%10_000, Players: 3, PeakPlayers: 4,
					UsageCounts: db.UsageCounts{DownloadBytes: 1e6, UploadBytes: 1e5, DownloadDatagrams: 100, UploadDatagrams: 100},
				})
			}
			if err := d.AddUsage(b.Context(), server, report); err != nil {
				b.Fatal(err)
			}
		}
	})
}
