//go:build linux

package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/machine"
)

const (
	liveServers = 4
	// liveCPU is how much of a core live data may take of the panel, and liveWrites how many
	// statements that write, and transactions, a tunnel server may cause in a second.
	liveCPU    = 0.20
	liveWrites = 20.0
	// fullDevices is from how many devices on the measurements take their full time.
	fullDevices = 5000
	// sharedAllocations are those of the device that is followed.
	sharedAllocations = 10
)

// TestLive_ReportsCostLittleAndEventsArriveSoon has two allocations for each device that is
// asked for on four tunnel servers, whose control channels are all on one of two replicas.
// On each allocation a player plays, and for every five devices somebody follows what
// happens, on either replica.
func TestLive_ReportsCostLittleAndEventsArriveSoon(t *testing.T) {
	n := devices(t)
	database := startPostgres(t)
	first, second := newReplica(t, database), newReplica(t, database)
	first.start(t)
	second.start(t)
	admin := api(t, second.url, logIn(t, second.url))
	servers := enroll(t, admin, liveServers, &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)})
	shared := fillLive(t, database, 2*n)

	f := &fleet{address: first.address, platform: "live", devices: servers}
	c := &crowd{database: database, panel: first, fleet: f, stop: func() {}}
	defer func() { c.stop() }()
	last := 3 * usageEvery
	if n < fullDevices {
		last = usageEvery
	}
	c.run(t, f)
	awaitLive(t, f)
	quiet := c.cost(t, last)

	for _, s := range servers {
		s.live = newPlayers(s)
	}
	c.run(t, f)
	awaitLive(t, f)
	await.Within(t, patience, "usage that every tunnel server has reported", func(context.Context) (bool, error) {
		return !slices.ContainsFunc(servers, func(d *device) bool { return d.live.stored.Load() < d.live.parts() }), nil
	})
	live := c.cost(t, last)
	checkStored(t, database, servers, 2*n)
	t.Logf("%d allocations with players: live data took %.1f %% of a core (%.1f %% without, %.1f %% with it; %.0f %% of the CPUs used by others), and %.2f statements that write and %.2f transactions a second and tunnel server (%.2f and %.2f without)",
		2*n, 100*(live.cpu-quiet.cpu), 100*quiet.cpu, 100*live.cpu, 100*live.foreign, live.writes, live.transactions, quiet.writes, quiet.transactions)
	if live.cpu-quiet.cpu > liveCPU {
		t.Errorf("live data took %.1f %% of a core, want %.0f", 100*(live.cpu-quiet.cpu), 100*liveCPU)
	}
	if live.writes > liveWrites || live.transactions > liveWrites {
		t.Errorf("a tunnel server caused %.1f writes and %.1f transactions a second, want %.0f:\n%s", live.writes, live.transactions, liveWrites, database.mostFrequent(16))
	}

	follow(t, database, []*replica{first, second}, n/5, func(name string) {
		answer, err := admin.UpdateDeviceWithResponse(t.Context(), shared, types.DevicePatch{Name: &name})
		check(t, err)
		if answer.JSON200 == nil {
			t.Fatalf("rename: %s", answer.Body)
		}
	})
	if wrong := f.unexpected(); len(wrong) > 0 {
		t.Errorf("unexpected: %v", wrong)
	}
}

// fillLive makes tunnel clients with allocations, evenly on the tunnel servers, and an
// organisation that owns one of them, whose ID it returns.
func fillLive(t *testing.T, database *postgres, allocations int) uuid.UUID {
	t.Helper()
	_, err := database.Query(t.Context(), fmt.Sprintf(`
		SET session_replication_role = replica;
		INSERT INTO organisations (name) VALUES ('guild');
		INSERT INTO devices (name, kind, organisation_id, created_at, expires_at, approved_at)
			SELECT 'home', 'client', CASE WHEN n = 1 THEN (SELECT id FROM organisations) END, now() - n * interval '1 second', now(), now()
			FROM generate_series(1, %[1]d / %[2]d) n;
		INSERT INTO allocations (device_id, server_id, protocol, port, local_host, local_port, name, proxy_protocol, udp_idle_seconds)
			SELECT d.id, s.id, 'tcp', 10000 + (d.n - 1) * %[2]d + p, 'localhost', 25565, '', 'none', 60
			FROM (SELECT id, row_number() OVER (ORDER BY created_at DESC) AS n FROM devices WHERE kind = 'client') AS d
			CROSS JOIN generate_series(1, %[2]d) p
			JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM devices WHERE kind = 'server') AS s ON s.n = 1 + (d.n + p) %% %[3]d;
		`, allocations, sharedAllocations, liveServers))
	check(t, err)
	_, err = database.Query(t.Context(), `VACUUM ANALYZE`)
	check(t, err)
	id, err := database.Query(t.Context(), `SELECT id FROM devices WHERE organisation_id IS NOT NULL`)
	check(t, err)
	return uuid.MustParse(strings.TrimSpace(id))
}

// checkStored checks that the panel has stored what it was sent: every connection that
// there is, and the usage that it has acknowledged.
func checkStored(t *testing.T, database *postgres, servers []*device, allocations int) {
	t.Helper()
	if have := database.numbers(`SELECT count(*) FROM connections`)[0]; have != float64(allocations) {
		t.Errorf("%v connections are stored, want %d", have, allocations)
	}
	var least, most int64
	for _, d := range servers {
		least += d.live.stored.Load() / d.live.parts() * d.live.usage()
	}
	have := int64(database.numbers(`SELECT sum(u.download_bytes) FROM usage_days u JOIN usage_subjects s ON s.id = u.subject_id
		WHERE s.allocation_id > 0`)[0])
	for _, d := range servers {
		most += (d.live.stored.Load()/d.live.parts() + 1) * d.live.usage()
	}
	if have < least || have > most {
		t.Errorf("usage of %d bytes is stored, want %d to %d", have, least, most)
	}
}

func awaitLive(t *testing.T, f *fleet) {
	t.Helper()
	await.Within(t, patience, "connection of every tunnel server", func(context.Context) (bool, error) {
		return f.connected.Load() == int64(len(f.devices)), nil
	})
}

// cost is what a panel takes, in cores and, of Postgres, for each tunnel server and second.
type cost struct{ cpu, foreign, writes, transactions float64 }

// cost measures the panel for a time.
func (c *crowd) cost(t *testing.T, d time.Duration) cost {
	t.Helper()
	time.Sleep(2 * time.Second) // What the connection of tunnel servers causes is over.
	c.database.resetStatements()
	mark, err := machine.Now([]int{c.panel.PID()})
	check(t, err)
	time.Sleep(d) // It is time itself that is looked at.
	usage, err := mark.Since()
	check(t, err)
	each := usage.Elapsed.Seconds() * liveServers
	return cost{
		cpu: usage.CPU.Seconds() / usage.Elapsed.Seconds(), foreign: usage.Foreign,
		writes: c.database.writes() / each, transactions: c.database.transactions() / each,
	}
}
