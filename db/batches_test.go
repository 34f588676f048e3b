package db_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// hold locks a row that a statement of d, begun by begin, waits for. Until release, calls for
// statements of that kind wait for their batch.
func hold(t *testing.T, d *db.DB, lock string, id any, begin func()) (release func()) {
	t.Helper()
	d.SetStatementTimeout(6 * await.Timeout) // Release alone ends the wait, on a busy machine too.
	sql := dbtest.SQL(t, d)
	tx, err := sql.BeginTx(t.Context(), nil)
	check(t, err)
	_, err = tx.ExecContext(t.Context(), lock, id)
	check(t, err)
	var held sync.WaitGroup
	held.Go(begin)
	await.Until(t, "statement that waits for the lock", func() bool {
		var waits bool
		err := sql.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
	return func() {
		t.Helper()
		check(t, tx.Rollback())
		held.Wait()
	}
}

const (
	lockDevice     = `SELECT id FROM devices WHERE id = $1 FOR UPDATE`
	lockAllocation = `SELECT id FROM allocations WHERE id = $1 FOR UPDATE`
	lockReplica    = `SELECT id FROM replicas WHERE id = $1 FOR UPDATE`
)

// holdConnects makes clients that connect wait for one batch.
func holdConnects(t *testing.T, d *db.DB) (release func()) {
	t.Helper()
	first, replica := enroll(t, d, db.KindClient, nil), startReplica(t, d)
	return hold(t, d, lockReplica, replica, func() {
		if _, err := d.Connect(t.Context(), first.ID, db.Hello{TokenVersion: first.TokenVersion, ReplicaID: replica}); err != nil {
			t.Error(err)
		}
	})
}

// connection is the result of a Connect.
type connection struct {
	generation int64
	err        error
}

// queue begins a Connect, and returns once it waits for its batch.
func queue(t *testing.T, ctx context.Context, d *db.DB, id uuid.UUID, hello db.Hello) <-chan connection {
	t.Helper()
	before, _ := d.Waiting()
	result := make(chan connection, 1)
	go func() {
		generation, err := d.Connect(ctx, id, hello)
		result <- connection{generation, err}
	}()
	await.Until(t, "connect in the queue", func() bool { now, _ := d.Waiting(); return now > before })
	return result
}

func TestConnect_InABatchEachDeviceIsFencedByItself(t *testing.T) {
	d := dbtest.New(t)
	server, here, elsewhere := enroll(t, d, db.KindServer, nil), startReplica(t, d), startReplica(t, d)
	var clients [4]db.Device
	var older [4]int64
	var made [4]db.Allocation
	for i := range clients {
		clients[i] = enroll(t, d, db.KindClient, nil)
		made[i] = allocate(t, d, clients[i].ID, server.ID)
		older[i] = connect(t, d, clients[i], here)
		report := []db.Report{{AllocationID: made[i].ID, State: db.StateReady}}
		check(t, d.SaveReports(t.Context(), clients[i].ID, db.KindClient, report))
	}
	revoked, pending := enroll(t, d, db.KindClient, nil), startEnrollment(t, d, db.KindClient)
	release := holdConnects(t, d)
	var first, second [4]<-chan connection
	for i, c := range clients {
		hello := db.Hello{TokenVersion: c.TokenVersion, ReplicaID: elsewhere, AgentVersion: fmt.Sprint("first ", i)}
		first[i] = queue(t, t.Context(), d, c.ID, hello)
		hello.ReplicaID, hello.AgentVersion = here, fmt.Sprint("second ", i)
		second[i] = queue(t, t.Context(), d, c.ID, hello)
	}
	refused := map[error]<-chan connection{
		db.ErrNotFound: queue(t, t.Context(), d, uuid.New(), db.Hello{ReplicaID: here}),
		db.ErrConflict: queue(t, t.Context(), d, revoked.ID, db.Hello{ReplicaID: here, TokenVersion: revoked.TokenVersion + 1}),
	}
	unapproved := queue(t, t.Context(), d, pending.ID, db.Hello{ReplicaID: here, TokenVersion: pending.TokenVersion})
	release()

	for want, result := range refused {
		wantErr(t, await.Receive(t, result, "result").err, want)
	}
	wantErr(t, await.Receive(t, unapproved, "result").err, db.ErrConflict)
	var late sync.WaitGroup
	for i, c := range clients {
		one, two := await.Receive(t, first[i], "result"), await.Receive(t, second[i], "result")
		check(t, errors.Join(one.err, two.err))
		if one.generation <= older[i] || two.generation <= one.generation {
			t.Errorf("client %d: generations %d and %d after %d", i, one.generation, two.generation, older[i])
		}
		for _, generation := range []int64{older[i], one.generation} {
			late.Go(func() {
				if err := d.Disconnect(t.Context(), c.ID, generation, ""); err != nil {
					t.Error(err)
				}
			})
		}
		if got, err := d.Allocation(t.Context(), everything, made[i].ID); err != nil || got.ClientState != db.StatePending {
			t.Errorf("client %d: %+v, %v; its report was not reset", i, got, err)
		}
	}
	late.Wait()
	for i, c := range clients {
		if got := readDevice(t, d, c.ID); !got.Online || *got.AgentVersion != fmt.Sprint("second ", i) {
			t.Errorf("client %d after late disconnects: %+v", i, got)
		}
	}
}

func TestConnect_ErrorOfABatchReachesAllAndChangesNothing(t *testing.T) {
	d := dbtest.New(t)
	replica := startReplica(t, d)
	clients := []db.Device{enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)}
	release := holdConnects(t, d)
	good := queue(t, t.Context(), d, clients[0].ID, db.Hello{TokenVersion: clients[0].TokenVersion, ReplicaID: replica})
	ctx, leave := context.WithCancel(t.Context())
	left := queue(t, ctx, d, clients[2].ID, db.Hello{ReplicaID: replica})
	noLease := queue(t, t.Context(), d, clients[1].ID, db.Hello{TokenVersion: clients[1].TokenVersion, ReplicaID: uuid.New()})
	leave()
	wantErr(t, await.Receive(t, left, "result").err, context.Canceled) // It waits for nobody.
	release()
	for _, result := range []<-chan connection{good, noLease} {
		got := await.Receive(t, result, "result")
		if got.err == nil || errors.Is(got.err, db.ErrNotFound) || errors.Is(got.err, db.ErrConflict) {
			t.Errorf("got %+v", got)
		}
	}
	if readDevice(t, d, clients[0].ID).Online {
		t.Error("a device is online whose connect failed")
	}
	connect(t, d, clients[0], replica)
}

func TestConnect_TunnelServersAndDevicesOnStandbyDoNotWaitForABatch(t *testing.T) {
	d := dbtest.New(t)
	server, standby, replica := enroll(t, d, db.KindServer, nil), enroll(t, d, db.KindClient, nil), startReplica(t, d)
	release := holdConnects(t, d)
	for _, connects := range []struct {
		device db.Device
		hello  db.Hello
	}{
		{server, db.Hello{RelayPort: 7443}},
		{standby, db.Hello{IfOffline: true}},
	} {
		connects.hello.TokenVersion, connects.hello.ReplicaID = connects.device.TokenVersion, replica
		_, err := d.Connect(t.Context(), connects.device.ID, connects.hello)
		check(t, err)
		if got := readDevice(t, d, connects.device.ID); !got.Online || got.RelayPort != connects.hello.RelayPort {
			t.Errorf("connected: %+v", got)
		}
	}
	release()
}

func TestConnect_LockedDeviceDoesNotHoldUpOthers(t *testing.T) {
	d := dbtest.New(t)
	replica := startReplica(t, d)
	for name, lock := range map[string]string{"the device": lockDevice, "one of its allocations": lockAllocation} {
		t.Run(name, func(t *testing.T) {
			locked, server := enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindServer, nil)
			allocate(t, d, locked.ID, server.ID)
			var id any = allocate(t, d, locked.ID, server.ID).ID
			if lock == lockDevice {
				id = locked.ID
			}
			var devices []db.Device
			for range 8 {
				device := enroll(t, d, db.KindClient, nil)
				allocate(t, d, device.ID, server.ID)
				devices = append(devices, device)
			}
			ctx, leave := context.WithCancel(t.Context())
			release := hold(t, d, lock, id, func() {
				_, err := d.Connect(ctx, locked.ID, db.Hello{TokenVersion: locked.TokenVersion, ReplicaID: replica})
				if err == nil {
					t.Error("connected while a row of it was locked")
				}
			})
			var others sync.WaitGroup
			for _, device := range devices {
				others.Go(func() {
					_, err := d.Connect(t.Context(), device.ID, db.Hello{TokenVersion: device.TokenVersion, ReplicaID: replica})
					if err != nil {
						t.Error(err)
					}
				})
			}
			others.Wait()
			leave()
			release()
			connect(t, d, locked, replica)
		})
	}
}

func TestSaveReports_OfABatchTheLastReportCounts(t *testing.T) {
	d := dbtest.New(t)
	server := enroll(t, d, db.KindServer, nil)
	clients := []db.Device{enroll(t, d, db.KindClient, nil), enroll(t, d, db.KindClient, nil)}
	made := []db.Allocation{allocate(t, d, clients[0].ID, server.ID), allocate(t, d, clients[1].ID, server.ID)}
	var saves sync.WaitGroup
	save := func(client db.Device, allocation int64, state, reason string) {
		report := []db.Report{{AllocationID: allocation, State: state, Reason: reason}}
		if err := d.SaveReports(t.Context(), client.ID, db.KindClient, report); err != nil {
			t.Error(err)
		}
	}
	release := hold(t, d, lockAllocation, made[0].ID, func() { save(clients[0], made[0].ID, db.StateFailed, "the first") })
	for _, report := range []struct {
		client, allocation int
		state, reason      string
	}{
		{0, 0, db.StateFailed, "older"},
		{1, 1, db.StateFailed, "only"},
		{0, 1, db.StateFailed, "of another's allocation"},
		{0, 0, db.StateReady, ""},
	} {
		_, before := d.Waiting()
		saves.Go(func() { save(clients[report.client], made[report.allocation].ID, report.state, report.reason) })
		await.Until(t, "reports in the queue", func() bool { _, now := d.Waiting(); return now > before })
	}
	release()
	saves.Wait()
	for i, want := range []string{"ready ", "failed only"} {
		got, err := d.Allocation(t.Context(), everything, made[i].ID)
		check(t, err)
		if got := got.ClientState + " " + got.ClientReason; got != want {
			t.Errorf("allocation %d is %q, want %q", i, got, want)
		}
	}
}

func TestReads_ThatShareAStatementGetTheirOwnRows(t *testing.T) {
	d := dbtest.New(t)
	server, replica := enroll(t, d, db.KindServer, nil), startReplica(t, d)
	var reads sync.WaitGroup
	for range 9 {
		client := enroll(t, d, db.KindClient, nil)
		made, generation := allocate(t, d, client.ID, server.ID), connect(t, d, client, replica)
		for range 5 {
			reads.Go(func() {
				state, err := d.ClientState(t.Context(), client.ID)
				if err != nil || len(state.Allocations) != 1 || state.Allocations[0].ID != made.ID {
					t.Errorf("state %+v, %v", state, err)
				}
			})
			reads.Go(func() {
				channels, err := d.Channels(t.Context(), []uuid.UUID{client.ID, uuid.New()})
				if err != nil || len(channels) != 1 || channels[client.ID].Generation != generation {
					t.Errorf("channels %+v, %v", channels, err)
				}
			})
			reads.Go(func() {
				device, err := d.DeviceByID(t.Context(), client.ID)
				if err != nil || device.ID != client.ID {
					t.Errorf("device %+v, %v", device, err)
				}
			})
			reads.Go(func() {
				if _, err := d.DeviceByID(t.Context(), uuid.New()); !errors.Is(err, db.ErrNotFound) {
					t.Errorf("unknown device: %v", err)
				}
			})
		}
	}
	reads.Wait()
}
