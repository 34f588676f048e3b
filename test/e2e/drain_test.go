package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// playing is players who keep playing, each with a stream of its own of which
// every byte is checked.
type playing struct {
	rounds [4]atomic.Uint64
	ending atomic.Bool
	work   sync.WaitGroup
}

func (p *playing) start(t *testing.T, public string) {
	t.Helper()
	for i := range p.rounds {
		player := join(t, public)
		p.work.Go(func() {
			for !p.ending.Load() {
				n := p.rounds[i].Load()
				if _, err := exchange(player, uint64(i)<<32|n, patience); err != nil {
					t.Errorf("player %d, round %d: %v", i, n, err)
					return
				}
				p.rounds[i].Add(1)
			}
			if err := player.CloseWrite(); err != nil {
				t.Errorf("player %d: %v", i, err)
			}
			if rest, err := io.ReadAll(player); err != nil || len(rest) > 0 {
				t.Errorf("player %d ends with %d bytes too many: %v", i, len(rest), err)
			}
		})
	}
}

// await waits until every player has played more rounds.
func (p *playing) await(t *testing.T, more uint64) {
	t.Helper()
	for i := range p.rounds {
		want := p.rounds[i].Load() + more
		await.Within(t, patience, fmt.Sprintf("more answers to player %d", i), func(context.Context) (bool, error) {
			return p.rounds[i].Load() >= want, nil
		})
	}
}

// ask sends a number as a datagram and waits for it to come back.
func ask(conn net.Conn, number uint64, patience time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent, got := binary.BigEndian.AppendUint64(nil, number), make([]byte, 64)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	n, err := conn.Read(got)
	if err == nil && !bytes.Equal(got[:n], sent) {
		err = fmt.Errorf("sent %x, got %x", sent, got[:n])
	}
	return err
}

// secondServer starts another tunnel server, on an address of its own: the two
// have the same ports.
func (w *world) secondServer(t *testing.T) *cluster.Agent {
	t.Helper()
	const host = "127.0.0.2"
	server := cluster.NewTunnelServer(binaries, w.dir, "edge-2", 0, nil)
	server.Env = []string{
		"ECLITUNNEL_RELAY_LISTEN=" + net.JoinHostPort(host, fmt.Sprint(freePort(t))), "ECLITUNNEL_BIND_HOST=" + host,
	}
	ctx := within(t, time.Minute)
	if err := server.EnrollServer(ctx, w.panel, "--public-host", host); err != nil {
		t.Fatal(err)
	}
	process, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	if err := w.panel.AwaitOnline(ctx, server.Device.ID, process); err != nil {
		t.Fatal(err)
	}
	return server
}

// awaitServer waits until a tunnel server is in a state, and returns it.
func (w *world) awaitServer(t *testing.T, server *cluster.Agent, d time.Duration, met func(types.TunnelServer) bool) {
	t.Helper()
	await.Within(t, d, "such state of the tunnel server", func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.GetDeviceWithResponse(ctx, server.Device.ID)
		if err != nil {
			return false, err
		}
		if answer.JSON200 == nil || !met(answer.JSON200.Server.MustGet()) {
			return false, fmt.Errorf("it is %s", answer.Body)
		}
		return true, nil
	})
}

// restartServerOn restarts the first tunnel server with its public ports on an
// address.
func (w *world) restartServerOn(t *testing.T, host string) {
	t.Helper()
	w.server.Env = append(w.server.Env, "ECLITUNNEL_BIND_HOST="+host)
	if err := w.serving.Stop(); err != nil {
		t.Fatal(err)
	}
	await.Within(t, patience, "end of the tunnel server's control channel", func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.GetDeviceWithResponse(ctx, w.server.Device.ID)
		if err != nil || answer.JSON200 == nil {
			return false, err
		}
		return !answer.JSON200.Online, nil
	})
	var err error
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.AwaitOnline(within(t, patience), w.server.Device.ID, w.serving); err != nil {
		t.Fatal(err)
	}
}

// awaitMoved waits until all allocations listen on a tunnel server, and returns them.
func (w *world) awaitMoved(t *testing.T, to *cluster.Agent) []types.Allocation {
	t.Helper()
	var moved []types.Allocation
	await.Within(t, patience, "listening port for every allocation that moves", func(ctx context.Context) (bool, error) {
		list, err := w.panel.API.ListAllocationsWithResponse(ctx, nil)
		if err != nil || list.JSON200 == nil {
			return false, err
		}
		moved = *list.JSON200
		for _, a := range moved {
			if a.ServerID != to.Device.ID || a.Status != types.AllocationListening {
				return false, nil
			}
		}
		return true, nil
	})
	return moved
}

func TestFleet_DrainedTunnelServerLosesNobody(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	w.restartServerOn(t, "127.0.0.1") // It leaves the second one's address alone.
	idle := 5
	public := w.expose(t, types.CreateTCP, game.port, nil)
	publicUDP := w.expose(t, types.CreateUDP, startUDPEcho(t), &types.AllocationOptions{UDPIdleSeconds: &idle})
	second := w.secondServer(t)
	var players playing
	players.start(t, public)
	players.await(t, 10)
	flow, err := net.Dial("udp", publicUDP)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	if err := ask(flow, 1, patience); err != nil {
		t.Fatal(err)
	}

	move, limit := true, 600
	drained := time.Now()
	answer, err := w.panel.API.DrainDeviceWithResponse(within(t, patience), w.server.Device.ID, types.DeviceDrain{Move: &move, TimeoutSeconds: &limit})
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("drain: %v %s", err, answer.Body)
	}
	fresh := w.awaitMoved(t, second)
	t.Logf("new players could join elsewhere %v after the drain was asked for", time.Since(drained))
	for _, a := range fresh {
		if old := map[types.Protocol]string{types.ProtocolTCP: public, types.ProtocolUDP: publicUDP}[a.Protocol]; portOf(t, a.PublicAddress) != portOf(t, old) {
			t.Errorf("moved from %s to %s", old, a.PublicAddress)
		}
		if a.Protocol == types.ProtocolTCP {
			if err := plays(t.Context(), a.PublicAddress); err != nil {
				t.Errorf("a new player cannot join: %v", err)
			}
		}
	}
	closed(t, patience, public)
	players.await(t, 50)
	if err := ask(flow, 2, patience); err != nil {
		t.Errorf("a flow is lost with the move: %v", err)
	}
	latecomer, err := net.Dial("udp", publicUDP)
	if err != nil {
		t.Fatal(err)
	}
	defer latecomer.Close()
	if err := ask(latecomer, 3, time.Second); err == nil {
		t.Error("a new flow is served at the old place")
	}
	w.awaitServer(t, w.server, patience, func(s types.TunnelServer) bool {
		n, err := s.Players.Get()
		return s.State == types.ServerDraining && err == nil && n >= len(players.rounds)
	})

	players.ending.Store(true)
	players.work.Wait()
	w.awaitServer(t, w.server, patience, func(s types.TunnelServer) bool { return s.State == types.ServerDrained })
	if err := w.serving.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, a := range fresh {
		if a.Protocol == types.ProtocolTCP {
			awaitPlay(t, time.Second, a.PublicAddress)
		}
	}
	// Upgraded, it is back in service.
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	cordoned := false
	patched, err := w.panel.API.UpdateDeviceWithResponse(within(t, patience), w.server.Device.ID,
		types.DevicePatch{Server: &types.TunnelServerSettings{Cordoned: &cordoned}})
	if err != nil || patched.JSON200 == nil || patched.JSON200.Server.MustGet().State != types.ServerActive {
		t.Fatalf("back in service: %v %s", err, patched.Body)
	}
}

func TestFleet_DrainEndsAtItsLimit(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	limit := 4
	asked := time.Now()
	answer, err := w.panel.API.DrainDeviceWithResponse(within(t, patience), w.server.Device.ID, types.DeviceDrain{TimeoutSeconds: &limit})
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("drain: %v %s", err, answer.Body)
	}
	closed(t, 2*time.Second, public)
	if _, err := exchange(player, 2, time.Second); err != nil {
		t.Errorf("a player is lost before the limit: %v", err)
	}
	gone(t, player, asked, time.Duration(limit+3)*time.Second)
	w.awaitServer(t, w.server, patience, func(s types.TunnelServer) bool { return s.State == types.ServerDrained })
	cordoned := false
	if _, err := w.panel.API.UpdateDeviceWithResponse(within(t, patience), w.server.Device.ID,
		types.DevicePatch{Server: &types.TunnelServerSettings{Cordoned: &cordoned}}); err != nil {
		t.Fatal(err)
	}
	awaitPlay(t, patience, public)
}
