//go:build linux

package load

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/machine"
)

// The limits that the panel keeps.
const (
	settleLimit = time.Minute // After a restart, with all devices there were.
	// memoryLimit and statementLimit are of one device: resident memory while it
	// idles, and statements to Postgres when it comes back. Both leave room above
	// what is measured (docs/operations.md).
	memoryLimit    = 96 << 10
	statementLimit = 16.0
)

// crowd is a panel with devices that idle on it.
type crowd struct {
	database *postgres
	panel    *replica
	fleet    *fleet
	memory   int64 // Of the panel, before there were devices.
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
	logIn(t, c.panel.url) // Its 64 MiB are part of what it has without devices.
	var err error
	c.memory, err = machine.Memory([]int{c.panel.PID()})
	check(t, err)
	c.fleet = &fleet{address: c.panel.address, devices: append(server, clients...)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.fleet.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return c
}

// settle waits until every device is connected and Postgres has heard that every
// port is open.
func (c *crowd) settle(t *testing.T) {
	t.Helper()
	all := int64(len(c.fleet.devices))
	await.Within(t, patience, "connection of every device", func(context.Context) (bool, error) {
		return c.fleet.connected.Load() == all, nil
	})
	await.Within(t, patience, "port open for every device", func(context.Context) (bool, error) {
		return c.database.numbers(`SELECT count(*) FROM allocations a
			JOIN devices d ON d.id = a.device_id JOIN replicas r ON r.id = d.replica_id
			WHERE a.client_state = 'ready' AND a.server_state = 'ready' AND r.lease_expires_at > now()`)[0] == float64(all-1), nil
	})
}

func TestIdle_DevicesCostLittleAndComeBackTogether(t *testing.T) {
	n := devices(t)
	c := gather(t, n)
	c.database.resetStatements()
	started := time.Now()
	c.settle(t)
	statements, _ := c.database.statements()
	t.Logf("%d devices connected in %v, with %.1f statements each", n, time.Since(started).Round(time.Millisecond), statements/float64(n))
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
		c.settle(t)
		took := time.Since(started)
		usage, err := mark.Since()
		check(t, err)
		statements, worked := c.database.statements()
		each := statements / float64(n)
		t.Logf("panel %s: %d devices back and settled %v after it was ready; %.1f statements each, %v of Postgres, %v of the panel; connected %d times; ends: %v",
			end.how, n, took.Round(time.Millisecond), each, worked.Round(time.Millisecond), usage.CPU.Round(time.Millisecond),
			c.fleet.connects.Load()-connects, c.fleet)
		t.Logf("sent most often:\n%s", c.database.mostFrequent(16))
		if took > settleLimit {
			t.Errorf("it took %v to settle, want %v", took, settleLimit)
		}
		if each > statementLimit {
			t.Errorf("%.1f statements a device, want %v", each, statementLimit)
		}
	}
	if wrong := c.fleet.unexpected("connection refused", "connection reset", "HTTP 503", "close 1012"); len(wrong) > 0 {
		t.Errorf("unexpected: %v", wrong)
	}
	if dead := c.fleet.dead.Load(); dead > 0 {
		t.Errorf("%d devices were closed for good", dead)
	}
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
