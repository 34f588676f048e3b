//go:build linux

package load

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/machine"
)

// slowRate is how many bytes a second a slow line carries to its device.
const slowRate = 64 << 10

// slowConn is a connection whose device receives slowRate bytes a second. The kernel
// holds little for it, so that what is sent meanwhile waits at the panel.
type slowConn struct {
	net.Conn
	free time.Time // When the line is free again; used by the reading goroutine only.
}

func dialSlowly(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		conn.Close()
		return nil, err
	}
	return &slowConn{Conn: conn}, nil
}

func (c *slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), slowRate/16)])
	if now := time.Now(); c.free.Before(now) {
		c.free = now
	}
	c.free = c.free.Add(time.Duration(n) * time.Second / slowRate)
	time.Sleep(time.Until(c.free)) // It is time itself that the line takes.
	return n, err
}

// halve measures how long half of the devices take to come back after the panel's
// death: alone, and while the other half comes back over slow lines.
func (c *crowd) halve(t *testing.T) {
	t.Helper()
	c.stop()
	half := len(c.fleet.devices) / 2
	quick := &fleet{address: c.panel.address, platform: "quick", devices: c.fleet.devices[:half]}
	slow := &fleet{address: c.panel.address, platform: "slow", devices: c.fleet.devices[half:], slow: true}
	alone := c.comeBack(t, quick)
	together := c.comeBack(t, quick, slow)
	started := time.Now()
	c.settle(t, slow)
	t.Logf("panel killed: %d devices settled in %v alone, and in %v beside %d on lines of 64 kB/s, which took %v longer",
		half, alone.Round(time.Millisecond), together.Round(time.Millisecond), len(slow.devices), time.Since(started).Round(time.Millisecond))
	// Most of it is the devices' back-off, which is random.
	if limit := 2*alone + 5*time.Second; together > limit {
		t.Errorf("it took %v beside slow devices, want %v", together, limit)
	}
}

// comeBack connects fleets, kills the panel, and returns how long the first fleet takes
// to settle once the panel is back: see own.
func (c *crowd) comeBack(t *testing.T, fleets ...*fleet) time.Duration {
	t.Helper()
	c.run(t, fleets...)
	for _, f := range fleets {
		c.settle(t, f)
	}
	check(t, c.panel.Kill())
	// Otherwise those whose end is not seen yet would count as connected.
	await.Within(t, patience, "end of every channel", func(context.Context) (bool, error) {
		for _, f := range fleets {
			if f.connected.Load() > 0 {
				return false, nil
			}
		}
		return true, nil
	})
	c.panel.start(t)
	mark, err := machine.Now([]int{c.panel.PID()})
	check(t, err)
	c.settle(t, fleets[0])
	usage, err := mark.Since()
	check(t, err)
	return own(usage)
}
