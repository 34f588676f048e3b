package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func setEnabled(t *testing.T, d *db.DB, id int64, enabled bool) db.Allocation {
	t.Helper()
	a, err := d.UpdateAllocation(t.Context(), everything, id, db.AllocationPatch{Enabled: &enabled})
	check(t, err)
	return a
}

// wantOpen checks in the desired states of both ends whether an allocation is open on a tunnel server.
func wantOpen(t *testing.T, d *db.DB, a db.Allocation, server uuid.UUID, open bool) {
	t.Helper()
	atServer, atClient := false, false
	for _, port := range ports(t, d, server) {
		atServer = atServer || port.ID == a.ID && !port.Draining || port.Retires != nil && *port.Retires == a.ID
	}
	state, err := d.ClientState(t.Context(), a.DeviceID)
	check(t, err)
	for _, own := range state.Allocations {
		atClient = atClient || own.ID == a.ID
	}
	if atServer != open || atClient != open {
		t.Errorf("open at the tunnel server: %t, at the client: %t, want %t", atServer, atClient, open)
	}
}

func TestPause_KeepsThePortAndLeavesTheDesiredState(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	made := pair(t, d, client.ID, servers[0].ID)
	tcp, udp := made[0], made[1]
	ready(t, d, tcp)
	ready(t, d, udp)

	paused := setEnabled(t, d, tcp.ID, false)
	if paused.Enabled || paused.Port != tcp.Port || paused.ServerState != db.StatePending || paused.ClientState != db.StatePending {
		t.Errorf("paused: %+v", paused)
	}
	wantOpen(t, d, tcp, servers[0].ID, false)
	wantOpen(t, d, udp, servers[0].ID, true)
	again := newAllocation(client.ID, &servers[0].ID, "tcp")
	again.Port = tcp.Port
	_, err := d.CreateAllocations(t.Context(), again)
	wantErr(t, err, db.ErrPortTaken)
	if seen := setEnabled(t, d, tcp.ID, false); seen.Enabled {
		t.Error("pausing twice enables it")
	}
	// A report that was under way is not about what is to come.
	ready(t, d, tcp)
	if a := readAllocation(t, d, tcp.ID); a.ServerState != db.StatePending || a.ClientState != db.StatePending {
		t.Errorf("reported while paused: %+v", a)
	}

	resumed := setEnabled(t, d, tcp.ID, true)
	if !resumed.Enabled || resumed.Port != tcp.Port || resumed.Draining || resumed.Drained || resumed.DrainUntil != nil {
		t.Errorf("resumed: %+v", resumed)
	}
	wantOpen(t, d, tcp, servers[0].ID, true)
	ready(t, d, tcp)
	if a := setEnabled(t, d, tcp.ID, true); a.ServerState != db.StateReady {
		t.Errorf("enabling what is enabled resets it: %+v", a)
	}

	never := newAllocation(client.ID, &servers[0].ID, "tcp")
	never.Paused = true
	created, err := d.CreateAllocations(t.Context(), never)
	check(t, err)
	wantOpen(t, d, created[0], servers[0].ID, false)
	setEnabled(t, d, created[0].ID, true)
	wantOpen(t, d, created[0], servers[0].ID, true)
}

func TestPause_NotifiesBothSidesAndClosesOldPorts(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	a := allocate(t, d, client.ID, servers[0].ID)
	moved := moveTo(t, d, a.ID, servers[1].ID)
	wantOpen(t, d, a, servers[0].ID, true) // The old port.
	events := listen(t, d)
	setEnabled(t, d, a.ID, false)
	wantEvents(t, events, "pause", client, servers[0], servers[1])
	wantOpen(t, d, moved, servers[0].ID, false)
	wantOpen(t, d, moved, servers[1].ID, false)
	setEnabled(t, d, a.ID, true)
	wantEvents(t, events, "resume", client, servers[1])
}

// TestPause_MovesWithTheOthersAndStaysPaused drains a tunnel server of a pair of which one is paused.
func TestPause_MovesWithTheOthersAndStaysPaused(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	made := pair(t, d, client.ID, servers[0].ID)
	alone := allocate(t, d, client.ID, servers[0].ID)
	setEnabled(t, d, made[0].ID, false)
	setEnabled(t, d, alone.ID, false)
	_, err := d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, true)
	check(t, err)
	advanceDrains(t, d)
	for _, a := range []db.Allocation{made[0], alone} {
		now := readAllocation(t, d, a.ID)
		if now.ServerID != servers[1].ID || now.Enabled || !now.Drained {
			t.Errorf("moved: %+v", now)
		}
		wantOpen(t, d, a, servers[0].ID, false)
		wantOpen(t, d, a, servers[1].ID, false)
	}
	wantOpen(t, d, made[1], servers[0].ID, true) // Until it is ready at the other one.
	wantOpen(t, d, made[1], servers[1].ID, true)
	cordon(t, d, servers[0].ID, false)
	wantOpen(t, d, alone, servers[0].ID, false)
	setEnabled(t, d, alone.ID, true)
	wantOpen(t, d, alone, servers[1].ID, true)
}

func TestPause_EndsOnADrainingServerWithoutNewPlayers(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 1)
	a := allocate(t, d, client.ID, servers[0].ID)
	setEnabled(t, d, a.ID, false)
	_, err := d.DrainServer(t.Context(), everything, servers[0].ID, time.Hour, false)
	check(t, err)
	wantState(t, d, servers[0], db.ServerDrained) // A paused port has no players.
	if resumed := setEnabled(t, d, a.ID, true); !resumed.Draining || resumed.Drained {
		t.Errorf("resumed while the tunnel server drains: %+v", resumed)
	}
	setEnabled(t, d, a.ID, false)
	cordon(t, d, servers[0].ID, false)
	wantOpen(t, d, a, servers[0].ID, false)
	setEnabled(t, d, a.ID, true)
	wantOpen(t, d, a, servers[0].ID, true)
}

// TestPause_HoldsAgainstReplicasOfThePreviousVersion runs their statements.
func TestPause_HoldsAgainstReplicasOfThePreviousVersion(t *testing.T) {
	d := dbtest.New(t)
	client, servers := enroll(t, d, db.KindClient, nil), fleet(t, d, 2)
	a := allocate(t, d, client.ID, servers[0].ID)
	setEnabled(t, d, a.ID, false)
	sql := dbtest.SQL(t, d)
	for _, statement := range []string{
		`UPDATE allocations a SET draining = false, drained = false, drain_until = NULL, server_state = 'pending'`,
		`UPDATE allocations SET server_state = 'ready', client_state = 'ready', target = 'up'`,
		`INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol,
				udp_idle_seconds, retires, drain_until)
			SELECT device_id, (SELECT id FROM devices d WHERE kind = 'server' AND d.id <> a.server_id), protocol, port, local_host,
				local_port, name, proxy_protocol, udp_idle_seconds, id, now() + interval '1 hour' FROM allocations a`,
	} {
		_, err := sql.ExecContext(t.Context(), statement)
		check(t, err)
		for _, server := range servers {
			var open int // As the previous version reads it.
			check(t, sql.QueryRowContext(t.Context(),
				`SELECT count(*) FROM allocations WHERE server_id = $1 AND NOT drained`, server.ID).Scan(&open))
			if open != 0 {
				t.Errorf("open after %s", statement)
			}
		}
	}
	if now := readAllocation(t, d, a.ID); now.ServerState != db.StatePending || now.Target != db.TargetUnknown {
		t.Errorf("got %+v", now)
	}
}
