//go:build linux

package attack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// patience is how long anything may take that nothing is asserted of.
const patience = 20 * time.Second

// world is what is attacked: a panel with its tunnel server, an agent, and a game.
type world struct {
	dir       string
	panel     *cluster.Panel
	agent     *cluster.Agent
	running   *cluster.Process
	game      *traffic.Game
	relayPort int
	// tcp and udp are the allocations that are attacked, and players' too; other is
	// one of the same agent that nobody attacks.
	tcp, udp, other types.Allocation
}

var (
	theWorld  *world
	worldErr  error
	makeWorld sync.Once
)

// sharedWorld returns the one world of the package. Each attack leaves it as it was.
func sharedWorld(t *testing.T) *world {
	t.Helper()
	needsNetwork(t)
	makeWorld.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		theWorld = &world{}
		worldErr = theWorld.start(ctx)
	})
	if worldErr != nil {
		t.Fatal(worldErr)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("panel:\n%s\nagent:\n%s", theWorld.panel.LastLines(20), theWorld.running.LastLines(10))
		}
	})
	return theWorld
}

func (w *world) start(ctx context.Context) (err error) {
	if w.dir, err = cluster.NewDir(); err != nil {
		return err
	}
	ports, err := cluster.FreePorts(ctx, 20)
	if err != nil {
		return err
	}
	listen, err := cluster.FreePorts(ctx, 1)
	if err != nil {
		return err
	}
	if w.relayPort, err = cluster.FreePorts(ctx, 1); err != nil {
		return err
	}
	w.panel, err = cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: binaries, Dir: w.dir, Listen: listen, Relay: w.relayPort, PortFirst: ports, PortLast: ports + 19,
	})
	if err != nil {
		return err
	}
	if w.game, err = traffic.Listen(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	w.agent = cluster.NewAgent(binaries, w.dir, "home", nil)
	if err := w.agent.Enroll(ctx, w.panel); err != nil {
		return err
	}
	if err := w.startAgent(ctx); err != nil {
		return err
	}
	return w.allocate(ctx)
}

func (w *world) startAgent(ctx context.Context) (err error) {
	if w.running, err = w.agent.Start(); err != nil {
		return err
	}
	return w.panel.AwaitOnline(ctx, w.agent.Device.ID, w.running)
}

func (w *world) allocate(ctx context.Context) error {
	port, err := portOf(w.game.Addr())
	if err != nil {
		return err
	}
	for _, protocol := range []types.AllocationCreateProtocol{types.CreateTCPUDP, types.CreateTCP} {
		answer, err := w.panel.API.CreateAllocationWithResponse(ctx, types.AllocationCreate{
			DeviceID: &w.agent.Device.ID, Protocol: protocol, LocalPort: port,
		})
		if err != nil {
			return err
		}
		if answer.JSON201 == nil {
			return fmt.Errorf("allocate: %s: %s", answer.Status(), answer.Body)
		}
	}
	all, err := w.panel.AwaitListening(ctx, w.agent.Device.ID, port, 3)
	if err != nil {
		return err
	}
	for _, a := range all {
		switch {
		case a.Protocol == types.ProtocolUDP:
			w.udp = a
		case w.tcp.ID == 0 || a.ID < w.tcp.ID:
			w.tcp, w.other = a, w.tcp
		default:
			w.other = a
		}
	}
	return nil
}

// expose allocates a public port for a local one, for as long as the test runs. No other
// allocation leads there.
func (w *world) expose(t *testing.T, protocol types.AllocationCreateProtocol, local int, options *types.AllocationOptions) types.Allocation {
	t.Helper()
	answer, err := w.panel.API.CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &w.agent.Device.ID, Protocol: protocol, LocalPort: local, Options: options,
	})
	if err != nil {
		t.Fatal(err)
	}
	if answer.JSON201 == nil {
		t.Fatalf("allocate: %s: %s", answer.Status(), answer.Body)
	}
	t.Cleanup(func() {
		//nolint:usetesting // the test's context has ended
		if _, err := w.panel.API.DeleteAllocationWithResponse(context.Background(), answer.JSON201.ID); err != nil {
			t.Error(err)
		}
	})
	opened, err := w.panel.AwaitListening(t.Context(), w.agent.Device.ID, local, 1)
	if err != nil {
		t.Fatal(err)
	}
	return opened[0]
}

func portOf(address string) (int, error) {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// stopWorld ends what sharedWorld has started.
func stopWorld() error {
	w := theWorld
	if w == nil {
		return nil
	}
	var errs []error
	if w.running != nil {
		errs = append(errs, w.running.Stop())
	}
	if w.panel != nil {
		errs = append(errs, w.panel.Stop())
	}
	if w.game != nil {
		errs = append(errs, w.game.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// address is where players of this package reach an allocation.
func (w *world) address(a types.Allocation) string {
	return net.JoinHostPort(server4, strconv.Itoa(a.Port))
}

// online reports whether the agent's device is online, as the panel shows it.
func (w *world) online(ctx context.Context) (bool, error) {
	answer, err := w.panel.API.GetDeviceWithResponse(ctx, w.agent.Device.ID)
	if err != nil {
		return false, err
	}
	if answer.JSON200 == nil {
		return false, fmt.Errorf("get device: %s: %s", answer.Status(), answer.Body)
	}
	return answer.JSON200.Online, nil
}
