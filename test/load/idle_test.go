//go:build linux

package load

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/machine"
)

// The limits that the panel keeps.
const (
	// settleLimit is after a restart, with all devices there were, on a machine that
	// others leave alone: see own.
	settleLimit = 15 * time.Second
	// The others are of one device. memoryLimit is of resident memory (PSS) while it idles.
	memoryLimit = 50 << 10
	// statementLimit is of statements to Postgres when all connect at the same time. It
	// is far below the five of a device that comes alone.
	statementLimit = 1.0
	// transactionLimit is of transactions when it comes back. How many devices share a
	// statement depends on how far apart they come, but few have a transaction of
	// their own.
	transactionLimit = 0.1
)

// crowd is a panel with devices that idle on it.
type crowd struct {
	database *postgres
	panel    *replica
	fleet    *fleet
	memory   int64  // Of the panel, before there were devices.
	stop     func() // Disconnects the devices that run connected.
}

func gather(t *testing.T, n int) *crowd {
	t.Helper()
	c := &crowd{database: startPostgres(t)}
	c.panel = newReplica(t, c.database)
	c.panel.start(t)
	admin := api(t, c.panel.url, logIn(t, c.panel.url))
	server := enroll(t, admin, 1, &types.RelayEndpoint{Port: 7443, Fingerprint: strings.Repeat("ab", 32)})
	started := time.Now()
	clients := enroll(t, admin, n, nil)
	t.Logf("%d devices enrolled in %v", n, time.Since(started).Round(time.Millisecond))
	started = time.Now()
	allocate(t, admin, clients, server[0])
	t.Logf("%d ports allocated in %v", n, time.Since(started).Round(time.Millisecond))

	// Started again, so that enrolling them is no part of its memory.
	check(t, c.panel.Stop())
	c.panel.start(t)
	var err error
	c.memory, err = machine.Memory([]int{c.panel.PID()})
	check(t, err)
	c.fleet = &fleet{address: c.panel.address, platform: "all", devices: append(server, clients...)}
	c.stop = func() {}
	t.Cleanup(func() { c.stop() })
	c.run(t, c.fleet)
	return c
}

// run connects fleets, in place of those that it connected before.
func (c *crowd) run(t *testing.T, fleets ...*fleet) {
	t.Helper()
	c.stop()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, f := range fleets {
		running.Go(func() { f.run(ctx) })
	}
	c.stop = func() {
		cancel()
		running.Wait()
	}
}

// settle waits until every device of a fleet is connected, the panel shows it online,
// and Postgres has heard that its ports are open.
func (c *crowd) settle(t *testing.T, f *fleet) {
	t.Helper()
	all := int64(len(f.devices))
	await.Within(t, patience, "connection of every device", func(context.Context) (bool, error) {
		return f.connected.Load() == all, nil
	})
	ports := 0
	for _, d := range f.devices {
		if d.relay == nil {
			ports++
		}
	}
	await.Within(t, patience, "port open for every device", func(context.Context) (bool, error) {
		return c.database.numbers(fmt.Sprintf(`SELECT count(*) FROM allocations a
			JOIN devices d ON d.id = a.device_id JOIN replicas r ON r.id = d.replica_id
			WHERE a.client_state = 'ready' AND a.server_state = 'ready' AND r.lease_expires_at > now()
				AND d.platform = '%s'`, f.platform))[0] == float64(ports), nil
	})
}

func TestIdle_DevicesCostLittleAndComeBackTogether(t *testing.T) {
	n := devices(t)
	c := gather(t, n)
	c.database.resetStatements()
	started := time.Now()
	c.settle(t, c.fleet)
	statements, _ := c.database.statements()
	t.Logf("%d devices settled in %v, with %.1f statements each", n, time.Since(started).Round(time.Millisecond), statements/float64(n))
	if each := statements / float64(n); each > statementLimit {
		t.Errorf("%.1f statements a device, want %v:\n%s", each, statementLimit, c.database.mostFrequent(16))
	}
	c.rest(t, n)

	for _, end := range []struct {
		how string
		do  func() error
	}{
		{"killed", func() error { return c.panel.Kill() }},
		{"restarted", func() error { return c.panel.Stop() }},
	} {
		check(t, end.do())
		c.database.resetStatements()
		connects := c.fleet.connects.Load()
		c.panel.start(t)
		mark, err := machine.Now([]int{c.panel.PID()})
		check(t, err)
		started := time.Now()
		c.settle(t, c.fleet)
		took := time.Since(started)
		usage, err := mark.Since()
		check(t, err)
		statements, worked := c.database.statements()
		transactions := c.database.transactions() / float64(n)
		t.Logf("panel %s: %d devices back and settled %v after it was ready (%.0f %% of the CPUs used by others); %.1f statements and %.2f transactions each, %v of Postgres, %v of the panel; connected %d times; ends: %v",
			end.how, n, took.Round(time.Millisecond), 100*usage.Foreign, statements/float64(n), transactions, worked.Round(time.Millisecond), usage.CPU.Round(time.Millisecond),
			c.fleet.connects.Load()-connects, c.fleet)
		t.Logf("sent most often:\n%s", c.database.mostFrequent(16))
		if own(usage) > settleLimit {
			t.Errorf("it took %v to settle, without the CPU time of others %v, want %v", took, own(usage), settleLimit)
		}
		if transactions > transactionLimit {
			t.Errorf("%.2f transactions a device, want %v", transactions, transactionLimit)
		}
	}
	c.halve(t)
	// The last two are of a machine that others use up: a statement or a handshake took
	// too long, and the device came back.
	if wrong := c.fleet.unexpected("connection refused", "connection reset", "HTTP 503", "close 1012", "close 1013", "timeout"); len(wrong) > 0 {
		t.Errorf("unexpected: %v", wrong)
	}
	if dead := c.fleet.dead.Load(); dead > 0 {
		t.Errorf("%d devices were closed for good", dead)
	}
}

// own is what remains of a time without the share of the CPUs that others used.
func own(usage machine.Usage) time.Duration {
	return time.Duration((1 - usage.Foreign) * float64(usage.Elapsed))
}

// rest measures the panel while nothing happens.
func (c *crowd) rest(t *testing.T, n int) {
	t.Helper()
	c.database.resetStatements()
	mark, err := machine.Now([]int{c.panel.PID()})
	check(t, err)
	time.Sleep(10 * time.Second) // It is time itself that is looked at.
	usage, err := mark.Since()
	check(t, err)
	memory, err := machine.Memory([]int{c.panel.PID()})
	check(t, err)
	each := (memory - c.memory) / int64(n)
	statements, _ := c.database.statements()
	t.Logf("at rest: %.1f KiB a device (%d MiB in all), %.1f %% of a CPU (%d CPUs, %.0f %% used by others), %.1f statements a second",
		float64(each)/1024, memory>>20, 100*usage.CPU.Seconds()/usage.Elapsed.Seconds(),
		runtime.NumCPU(), 100*usage.Foreign, statements/usage.Elapsed.Seconds())
	if each > memoryLimit {
		t.Errorf("%d bytes a device, want %d", each, memoryLimit)
	}
}
