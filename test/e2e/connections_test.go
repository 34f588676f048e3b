package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// connections waits until the list of connections to an allocation is as it should be.
func (w *world) connections(t *testing.T, id types.AllocationID, what string, met func([]types.Connection) bool) []types.Connection {
	t.Helper()
	var list []types.Connection
	await.Within(t, patience, what, func(ctx context.Context) (bool, error) {
		answer, err := w.panel.API.ListConnectionsWithResponse(ctx, &types.ListConnectionsParams{AllocationID: &id})
		if err != nil {
			return false, err // The panel may be on its way back.
		}
		if answer.JSON200 == nil {
			return false, fmt.Errorf("%s: %s", answer.Status(), answer.Body)
		}
		list = *answer.JSON200
		return met(list), nil
	})
	return list
}

func count(n int) func([]types.Connection) bool {
	return func(list []types.Connection) bool { return len(list) == n }
}

// cutOff closes a connection.
func (w *world) cutOff(t *testing.T, c types.Connection, keepOutSeconds int) {
	t.Helper()
	answer, err := w.panel.API.CloseConnectionWithResponse(within(t, patience), c.ID, &types.CloseConnectionParams{KeepOutSeconds: &keepOutSeconds})
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("close: %v %s", err, answer.Body)
	}
}

func TestConnections_AreShownAndCutOff(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	id := w.allocations(t, game.port)[0].ID
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	// Its bytes come with the next report of this connection.
	c := w.connections(t, id, "the player's bytes", func(list []types.Connection) bool {
		_, err := exchange(player, 2, patience)
		return err == nil && len(list) == 1 && list[0].DownloadBytes > 0 && !list[0].TunnelRoundTripMs.IsNull()
	})[0]
	from, _ := player.LocalAddr().(*net.TCPAddr)
	if c.SourceAddress != "127.0.0.1" || c.SourcePort != from.Port || c.ServerID != w.server.Device.ID || c.UploadBytes != c.DownloadBytes || c.PlayerRoundTripMs.IsNull() {
		t.Errorf("it is shown as %+v", c)
	}

	// The list is right again after the panel was killed, and after the tunnel server was.
	other := join(t, public)
	w.connections(t, id, "both players", count(2))
	if err := w.panel.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if again := w.connections(t, id, "the player who has stayed", count(1))[0]; again.ID != c.ID || !again.Since.Equal(c.Since) {
		t.Errorf("it is shown as %+v, before as %+v", again, c)
	}
	began := time.Now()
	w.cutOff(t, c, 0)
	gone(t, player, began, time.Second)
	w.connections(t, id, "nobody", count(0))

	player = join(t, public)
	c = w.connections(t, id, "the next player", count(1))[0]
	w.restartTunnelServer(t)
	w.connections(t, id, "nobody after the end of the tunnel server", count(0))
	w.awaitListening(t, id)
	awaitPlay(t, patience, public)
}

func TestConnections_StayOutAfterRestarts(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	id := w.allocations(t, game.port)[0].ID
	player := join(t, public)
	c := w.connections(t, id, "the player", count(1))[0]
	began := time.Now()
	w.cutOff(t, c, 3600)
	gone(t, player, began, time.Second)
	stillOut := func(after string) {
		t.Helper()
		await.Within(t, patience, "the port after "+after, func(ctx context.Context) (bool, error) {
			err := plays(ctx, public)
			if err == nil {
				t.Fatalf("the player is back after %s", after)
			}
			return !errors.Is(err, syscall.ECONNREFUSED), nil // Otherwise it is not open yet.
		})
	}
	stillOut("the cut")
	w.restartTunnelServer(t)
	stillOut("a restart of the tunnel server")
	if err := w.panel.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	stillOut("a restart of the panel")
	answer, err := w.panel.API.ReadmitSourceWithResponse(within(t, patience), id, &types.ReadmitSourceParams{Source: "127.0.0.1"})
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("readmit: %v %s", err, answer.Body)
	}
	awaitPlay(t, patience, public)
}

func TestConnections_OfDatagramsAreShownAndCutOff(t *testing.T) {
	w := sharedFor(t)
	game, err := traffic.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = game.Close() }()
	_, port, _ := net.SplitHostPort(game.Addr())
	local, _ := net.LookupPort("udp", port)
	public := w.expose(t, types.CreateUDP, local, nil)
	id := w.allocations(t, local)[0].ID
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- new(traffic.Player).StayDatagrams(ctx, public, 50*time.Millisecond, func(time.Time) {}, func(time.Time) {})
	}()
	c := w.connections(t, id, "the player", count(1))[0]
	if c.Protocol != types.ProtocolUDP || !netip.MustParseAddr(c.SourceAddress).IsLoopback() || !c.PlayerRoundTripMs.IsNull() {
		t.Errorf("it is shown as %+v", c)
	}
	// A game that goes on sending has another flow, another connection.
	w.cutOff(t, c, 0)
	w.connections(t, id, "another connection", func(list []types.Connection) bool { return len(list) == 1 && list[0].ID != c.ID })
	stop()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// restartTunnelServer kills the tunnel server and starts it again.
func (w *world) restartTunnelServer(t *testing.T) {
	t.Helper()
	if err := w.serving.Kill(); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.AwaitOnline(within(t, patience), w.server.Device.ID, w.serving); err != nil {
		t.Fatal(err)
	}
}
