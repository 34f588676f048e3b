package e2e

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// darken kills the panel and its Postgres.
func (w *world) darken(t *testing.T) {
	t.Helper()
	if err := errors.Join(w.panel.Kill(), w.panel.KillPostgres()); err != nil {
		t.Fatal(err)
	}
}

// closed waits until nothing listens on a public address.
func closed(t *testing.T, d time.Duration, public string) {
	t.Helper()
	await.Within(t, d, "refused connection", func(ctx context.Context) (bool, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", public)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED), nil
	})
}

func TestFleet_ServesWithPanelAndPostgresGone(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCPUDP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	w.darken(t)

	if _, err := exchange(player, 2, time.Second); err != nil {
		t.Errorf("a player is lost with the panel: %v", err)
	}
	if err := plays(t.Context(), public); err != nil {
		t.Errorf("a new player cannot join: %v", err)
	}

	// What dies meanwhile comes back by itself, from what it has on disk.
	var err error
	if err := w.serving.Kill(); err != nil {
		t.Fatal(err)
	}
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed and started again, the tunnel server took a player after %v", awaitPlay(t, 10*time.Second, public))
	if err := w.running.Kill(); err != nil {
		t.Fatal(err)
	}
	if w.running, err = w.agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed and started again, the agent served a player after %v", awaitPlay(t, 10*time.Second, public))

	player = join(t, public)
	if _, err := exchange(player, 3, patience); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, a := range w.allocations(t, game.port) {
		w.awaitListening(t, a.ID)
	}
	if _, err := exchange(player, 4, time.Second); err != nil {
		t.Errorf("a player is lost with the panel's return: %v", err)
	}
	awaitPlay(t, patience, w.expose(t, types.CreateTCP, game.port, nil))
}

func TestFleet_RegeneratedTokenEndsATunnelServer(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	regenerated := time.Now()
	answer, err := w.panel.API.RegenerateDeviceTokenWithResponse(within(t, patience), w.server.Device.ID)
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("regenerate: %v %s", err, answer.Body)
	}
	gone(t, player, regenerated, time.Second)
	exits(t, w.serving, "token")
	closed(t, time.Second, public)

	// Its last state went with the token: started once more while the panel is
	// away, it has nothing to serve.
	w.darken(t)
	w.startServingNothing(t, public)
	exits(t, w.serving, "token")
}

func TestFleet_SwitchedOffStaysOffWithoutThePanel(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	awaitPlay(t, patience, public)
	w.setTunnels(t, false)
	closed(t, 5*time.Second, public)
	w.darken(t)
	if err := w.serving.Kill(); err != nil {
		t.Fatal(err)
	}
	w.startServingNothing(t, public)
	w.setTunnels(t, true)
	awaitPlay(t, patience, public)
}

// startServingNothing starts the tunnel server while the panel is away, checks that it
// keeps a port closed, and starts the panel again.
func (w *world) startServingNothing(t *testing.T, public string) {
	t.Helper()
	var err error
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	await.Within(t, patience, "log line about the missing panel", func(context.Context) (bool, error) {
		return strings.Contains(w.serving.Output(), "not connected"), nil
	})
	closed(t, time.Second, public)
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}
