package db_test

import (
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// If the last port of the best tunnel server is taken concurrently, the next best one is used.
func TestCreateAllocations_RetriesWhenTheLastPortIsTaken(t *testing.T) {
	d := dbtest.New(t)
	org := dbtest.Organisation(t, d, "guild")
	replica := startReplica(t, d)
	server := func(first, last int, org *int64) db.Device {
		pending := startEnrollment(t, d, db.KindServer)
		_, err := d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon, OrganisationID: org, PublicHost: "x", PortFirst: first, PortLast: last})
		check(t, err)
		_, err = d.NextEnrollmentToken(t.Context(), pending.ID)
		check(t, err)
		s := readDevice(t, d, pending.ID)
		connect(t, d, s, replica)
		return s
	}
	best, other := server(20000, 20000, &org), server(20000, 20009, nil)
	pending := startEnrollment(t, d, db.KindClient)
	_, err := d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon, OrganisationID: &org})
	check(t, err)

	tx, err := dbtest.SQL(t, d).BeginTx(t.Context(), nil)
	check(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), `SELECT 1 FROM devices WHERE id = $1 FOR UPDATE`, best.ID)
	check(t, err)
	made := make(chan db.Allocation, 1)
	failed := make(chan error, 1)
	go func() {
		rows, err := d.CreateAllocations(t.Context(), newAllocation(pending.ID, nil, "tcp"))
		if err != nil {
			failed <- err
			return
		}
		made <- rows[0]
	}()
	deadline := time.Now().Add(eventLimit)
	for waits := false; !waits; { // It has chosen, and waits for the row.
		if time.Now().After(deadline) {
			t.Fatal("no session waits for the tunnel server's row")
		}
		check(t, tx.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits))
		_, err = tx.ExecContext(t.Context(), `SELECT pg_stat_clear_snapshot()`)
		check(t, err)
	}
	_, err = tx.ExecContext(t.Context(), `INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
		VALUES ($1, $2, 'tcp', 20000, 'x', 1, '', 'none', 60)`, pending.ID, best.ID)
	check(t, err)
	check(t, tx.Commit())
	select {
	case err := <-failed:
		t.Fatal(err)
	case a := <-made:
		if a.ServerID != other.ID {
			t.Errorf("%+v", a)
		}
	}
}
