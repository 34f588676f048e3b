package db_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestConnect_TakesDeviceOnline(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	if device.Online || device.LastSeenAt != nil || device.FirstConnectedAt != nil {
		t.Fatalf("before it connected: %+v", device)
	}
	generation := connect(t, d, device, startReplica(t, d))
	online := readDevice(t, d, device.ID)
	if !online.Online || online.LastSeenAt == nil || online.FirstConnectedAt == nil ||
		*online.AgentVersion != "1.0" || *online.Platform != "linux/amd64" {
		t.Errorf("connected: %+v", online)
	}
	check(t, d.Disconnect(t.Context(), device.ID, generation, ""))
	offline := readDevice(t, d, device.ID)
	if offline.Online || offline.LastSeenAt.Before(*online.LastSeenAt) || !offline.FirstConnectedAt.Equal(*online.FirstConnectedAt) {
		t.Errorf("disconnected: %+v", offline)
	}
}

func TestConnect_RejectsInvalidDevices(t *testing.T) {
	d := dbtest.New(t)
	replica := startReplica(t, d)
	_, err := d.Connect(t.Context(), uuid.New(), db.Hello{ReplicaID: replica})
	wantErr(t, err, db.ErrNotFound)
	_, err = d.Connect(t.Context(), startEnrollment(t, d, db.KindClient).ID, db.Hello{ReplicaID: replica})
	wantErr(t, err, db.ErrConflict)
	device := enroll(t, d, db.KindClient, nil)
	_, err = d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion + 1, ReplicaID: replica})
	wantErr(t, err, db.ErrConflict)
}

func TestConnect_IfOfflineLeavesTheOtherConnectionAlone(t *testing.T) {
	d := dbtest.New(t)
	device, replica := enroll(t, d, db.KindServer, nil), startReplica(t, d)
	standby := db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica, IfOffline: true, RelayPort: 1}

	// Of several at the same time one connects.
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			_, err := d.Connect(t.Context(), device.ID, standby)
			results <- err
		}()
	}
	connected := 0
	for range cap(results) {
		if err := <-results; err == nil {
			connected++
		} else {
			wantErr(t, err, db.ErrOnline)
		}
	}
	if connected != 1 {
		t.Fatalf("%d connected", connected)
	}

	newer := connect(t, d, device, replica)
	standby.ReplicaID = startReplica(t, d)
	_, err := d.Connect(t.Context(), device.ID, standby)
	wantErr(t, err, db.ErrOnline)
	if now := readDevice(t, d, device.ID); *now.AgentVersion != "1.0" || now.RelayPort != 0 {
		t.Errorf("changed to %+v", now)
	}
	check(t, d.Disconnect(t.Context(), device.ID, newer, ""))
	if generation, err := d.Connect(t.Context(), device.ID, standby); err != nil || generation != newer+1 {
		t.Errorf("after the other's end: generation %d, %v", generation, err)
	}

	// A device of a replica that has died is offline.
	check(t, d.RenewLease(t.Context(), standby.ReplicaID, 0))
	standby.ReplicaID = replica
	if _, err := d.Connect(t.Context(), device.ID, standby); err != nil {
		t.Error(err)
	}
}

// A replica without a lease must not be mistaken for a deleted device, which would stop the agent.
func TestConnect_ReplicaWithoutLeaseIsASeparateError(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	_, err := d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: uuid.New()})
	if err == nil {
		t.Fatal("connected to a replica without a lease")
	}
	if errors.Is(err, db.ErrNotFound) || errors.Is(err, db.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

func TestDisconnect_LateOneKeepsNewerConnection(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	first, second := startReplica(t, d), startReplica(t, d)
	older := connect(t, d, device, first)
	newer := connect(t, d, device, second)
	if newer <= older {
		t.Fatalf("generation %d after %d", newer, older)
	}
	check(t, d.Disconnect(t.Context(), device.ID, older, ""))
	check(t, d.ReconcilePresence(t.Context(), first, func() []uuid.UUID { return nil }))
	check(t, d.ReleaseReplica(t.Context(), first))
	if !readDevice(t, d, device.ID).Online {
		t.Error("the end of the older connection took the device offline")
	}
	channels, err := d.Channels(t.Context(), []uuid.UUID{device.ID, uuid.New()})
	check(t, err)
	want := db.Channel{TokenVersion: device.TokenVersion, Generation: newer}
	if len(channels) != 1 || channels[device.ID] != want {
		t.Errorf("channels %+v, want %+v", channels, want)
	}
}

func TestLease_ExpiryTakesDevicesOffline(t *testing.T) {
	d := dbtest.New(t)
	device := enroll(t, d, db.KindClient, nil)
	replica := startReplica(t, d)
	connect(t, d, device, replica)
	lastRenewal := noon.Add(24 * time.Hour)
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
		`WITH _ AS (UPDATE replicas SET renewed_at = $1, lease_expires_at = $1::timestamptz + interval '10 seconds')
		UPDATE devices SET last_seen_at = $1::timestamptz - interval '1 hour'`, lastRenewal)
	check(t, err)

	dead := readDevice(t, d, device.ID)
	if dead.Online || !dead.LastSeenAt.Equal(lastRenewal) {
		t.Errorf("online %v, last seen %v, want the last renewal %v", dead.Online, dead.LastSeenAt, lastRenewal)
	}
	// Maintenance keeps the replica, which determines when the device was last seen.
	maintain(t, d, db.Maintenance{})
	if dead := readDevice(t, d, device.ID); !dead.LastSeenAt.Equal(lastRenewal) {
		t.Errorf("last seen %v after maintenance", dead.LastSeenAt)
	}
	// A replica that was only slow gets its devices back.
	check(t, d.RenewLease(t.Context(), replica, time.Minute))
	if !readDevice(t, d, device.ID).Online {
		t.Error("offline though the lease was renewed")
	}
}

func TestMaintain_DeletesDeadReplicas(t *testing.T) {
	d := dbtest.New(t)
	for range 3 {
		startReplica(t, d)
	}
	sql := dbtest.SQL(t, d)
	_, err := sql.ExecContext(t.Context(), `UPDATE replicas SET lease_expires_at = now() - interval '2 hours'`)
	check(t, err)
	startReplica(t, d)
	maintain(t, d, db.Maintenance{})
	var left int
	check(t, sql.QueryRowContext(t.Context(), `SELECT count(*) FROM replicas`).Scan(&left))
	if left != 1 {
		t.Errorf("%d replicas are left, want 1", left)
	}
}

func TestReleaseReplica_GivesItsDevicesTimeToReconnect(t *testing.T) {
	d := dbtest.New(t)
	device, other := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	stopping, running := startReplica(t, d), startReplica(t, d)
	connect(t, d, device, stopping)
	connect(t, d, other, running)
	check(t, d.ReleaseReplica(t.Context(), stopping))
	if !readDevice(t, d, device.ID).Online {
		t.Error("offline before it could reconnect")
	}
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(), `UPDATE replicas SET lease_expires_at = lease_expires_at - interval '5 seconds'`)
	check(t, err)
	if readDevice(t, d, device.ID).Online {
		t.Error("online on a replica that stopped five seconds ago")
	}
	if !readDevice(t, d, other.ID).Online {
		t.Error("a device of another replica went offline")
	}
}

func TestReconcilePresence_CorrectsMissedDisconnects(t *testing.T) {
	d := dbtest.New(t)
	gone, here := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)
	replica := startReplica(t, d)
	connect(t, d, gone, replica)
	connect(t, d, here, replica)
	check(t, d.ReconcilePresence(t.Context(), replica, func() []uuid.UUID { return []uuid.UUID{here.ID} }))
	if readDevice(t, d, gone.ID).Online || !readDevice(t, d, here.ID).Online {
		t.Error("presence does not match the list")
	}
	check(t, d.ReconcilePresence(t.Context(), replica, func() []uuid.UUID { return nil }))
	if readDevice(t, d, here.ID).Online {
		t.Error("online although no device is connected")
	}
}
