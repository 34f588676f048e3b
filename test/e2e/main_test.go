// Package e2e runs the built binaries, a panel with its embedded Postgres and an
// agent, against programs of others: nginx, curl, wrk, an SSH
// server, iperf3, a DNS server and dig.
//
// ECLITUNNEL_BIN names a directory of binaries to test; without it they are
// built first. With CI set, a missing program fails a test that would be skipped.
package e2e

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// patience bounds every wait on something that takes a moment; what must be
// quicker names its own time.
const patience = 30 * time.Second

var binaries string

// TestMain searches, after all tests, the logs of all programs for every secret they used; see cluster.Logs.
func TestMain(m *testing.M) {
	logs := cluster.KeepLogs()
	clustertest.Main(m, &binaries, func() error { return errors.Join(closeShared(), logs.Close()) })
}

// world is a panel, and an agent that serves.
type world struct {
	dir     string
	panel   *cluster.Panel
	agent   *cluster.Agent
	running *cluster.Process

	// server is a tunnel server of its own and serving its process, in a world
	// whose panel has none inside; otherwise nil.
	server  *cluster.Agent
	serving *cluster.Process
}

// shared is the world of every test that leaves it as it was. Postgres takes
// seconds to set up; the tests that break things have worlds of their own.
var shared = sync.OnceValues(func() (*world, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w, err := newWorld(ctx, embedded)
	if err == nil {
		sharedWorld = w
	}
	return w, err
})

var sharedWorld *world // what closeShared closes; nil if no test asked

func closeShared() error {
	if sharedWorld == nil {
		return nil
	}
	return sharedWorld.close()
}

// tunnelServer is where a world's tunnel server runs.
type tunnelServer int

const (
	embedded   tunnelServer = iota // In the panel.
	standAlone                     // In a process of its own.
	plain                          // In the panel, with streams that are not encrypted.
)

func newWorld(ctx context.Context, where tunnelServer, change ...func(*cluster.PanelOptions)) (_ *world, err error) {
	w := new(world)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = cluster.NewDir(); err != nil {
		return nil, err
	}
	const publicPorts = 40
	ports, err := cluster.FreePorts(ctx, publicPorts+2)
	if err != nil {
		return nil, err
	}
	options := cluster.PanelOptions{
		Bin: binaries, Dir: w.dir,
		Listen: ports, Relay: ports + 1,
		PortFirst: ports + 2, PortLast: ports + 1 + publicPorts,
		PlainStreams: where == plain,
	}
	if where == standAlone {
		options.Relay = 0
	}
	for _, f := range change {
		f(&options)
	}
	if w.panel, err = cluster.StartPanel(ctx, options); err != nil {
		return nil, err
	}
	if err := w.panel.LiftRules(ctx); err != nil {
		return nil, err
	}
	if where == standAlone {
		w.server = cluster.NewTunnelServer(binaries, w.dir, "edge", ports+1, nil)
		host := "127.0.0.1"
		if err := w.server.Adopt(ctx, w.panel, &types.TunnelServerSettings{PublicHost: &host}); err != nil {
			return nil, err
		}
		if w.serving, err = w.server.Start(); err != nil {
			return nil, err
		}
		if err := w.panel.AwaitOnline(ctx, w.server.Device.ID, w.serving); err != nil {
			return nil, err
		}
	}
	w.agent = cluster.NewAgent(binaries, w.dir, "home-server", nil)
	if where == plain {
		w.agent.Env = append(w.agent.Env, "ECLITUNNEL_PLAIN_STREAMS=true")
	}
	if err := w.agent.Adopt(ctx, w.panel, nil); err != nil {
		return nil, err
	}
	if w.running, err = w.agent.Start(); err != nil {
		return nil, err
	}
	return w, w.panel.AwaitOnline(ctx, w.agent.Device.ID, w.running)
}

func (w *world) close() error {
	var errs []error
	for _, process := range []*cluster.Process{w.running, w.serving} {
		if process != nil {
			errs = append(errs, process.Stop())
		}
	}
	if w.panel != nil {
		select {
		case <-w.panel.Done():
			// Its Postgres may have outlived it, and stops with the next panel.
			errs = append(errs, w.panel.Restart(context.Background()))
		default:
		}
		errs = append(errs, w.panel.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}
