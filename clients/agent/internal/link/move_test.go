package link_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// addServer adds a second tunnel server to a data plane.
func addServer(d *linktest.DataPlane) (*relaytest.Panel, *relaytest.Server) {
	d.T.Helper()
	panel := relaytest.NewPanel(d.T)
	server := relaytest.Start(d.T, panel, nil)
	panel.AwaitHellos(1)
	panel.PutClient(d.Client, 1)
	d.Mu.Lock()
	d.Servers = append(d.Servers, types.ClientServer{
		ID: panel.Server, Address: server.Address, Fingerprint: server.Fingerprint(),
		Ticket: panel.Ticket(d.Client, 1, nil),
	})
	d.Mu.Unlock()
	return panel, server
}

// moveAllocations moves the first n allocations to a tunnel server in the client's
// desired state; leaving are the servers that still have players.
func moveAllocations(d *linktest.DataPlane, n int, to uuid.UUID, leaving ...uuid.UUID) {
	d.Mu.Lock()
	for i := range d.Allocations[:n] {
		d.Allocations[i].ServerID, d.Allocations[i].Leaving = to, nil
		if len(leaving) > 0 {
			d.Allocations[i].Leaving = &leaving
		}
	}
	d.Mu.Unlock()
	d.Apply()
}

// drain makes the old tunnel server of an allocation accept no new players.
func drain(d *linktest.DataPlane, id int64, protocol types.Protocol, port int) {
	until := time.Now().Add(time.Hour)
	a := relaytest.Allocation(id, d.Client, protocol, port)
	a.DrainUntil = &until
	d.Panel.Put(a)
}

func TestMove_PlayersStayOnTheOldServerAndNewOnesJoinOnTheNew(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	old := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	oldUDP := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	player, flow := d.Join(old), linktest.DialUDP(t, "127.0.0.1", oldUDP)
	linktest.Write(t, player, "before")
	linktest.Expect(t, player, "before")
	linktest.Ask(t, flow, []byte("before"))

	panel, server := addServer(d)
	port, portUDP := relaytest.FreePort(t), relaytest.FreePort(t)
	panel.Put(relaytest.Allocation(1, d.Client, types.ProtocolTCP, port), relaytest.Allocation(2, d.Client, types.ProtocolUDP, portUDP))
	moveAllocations(d, 2, panel.Server, d.Panel.Server)
	server.AwaitStats(t, "the new link", func(s relay.Stats) bool { return s.Links == 1 })
	if d.Server.Stats().Links != 1 {
		t.Fatal("the old link went before its players")
	}
	// The old tunnel server does not know yet: players it accepts are served.
	late := d.Join(old)
	linktest.Write(t, late, "late")
	linktest.Expect(t, late, "late")

	drain(d, 1, types.ProtocolTCP, old)
	drain(d, 2, types.ProtocolUDP, oldUDP)
	d.Panel.AwaitReport(1, types.ReportReady)
	d.Panel.AwaitReport(2, types.ReportReady)
	if err := linktest.Refusal(t, old); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new player on the old server sees %v, want a refusal", err)
	}
	newcomer := linktest.DialUDP(t, "127.0.0.1", oldUDP)
	if _, err := newcomer.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	d.Server.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.Dropped["draining"] == 1 })
	joined, joinedUDP := d.Join(port), linktest.DialUDP(t, "127.0.0.1", portUDP)
	linktest.Write(t, joined, "new")
	linktest.Expect(t, joined, "new")
	linktest.Ask(t, joinedUDP, []byte("new"))
	linktest.Write(t, player, "after")
	linktest.Expect(t, player, "after")
	if got := linktest.Ask(t, flow, []byte("after")); string(got) != "after" {
		t.Errorf("the flow was answered %q", got)
	}
	if d.Panel.Drained(1) || d.Panel.Drained(2) {
		t.Error("reported to have drained with players on it")
	}
	d.Panel.AwaitPlayers(3)

	_ = late.Close()
	_ = player.CloseWrite()
	if err := linktest.ReadToEnd(player); err != nil {
		t.Errorf("the player's stream ended with %v", err)
	}
	d.Panel.AwaitDrained(1)
	d.Panel.Remove(1, 2)
	moveAllocations(d, 2, panel.Server)
	d.Server.AwaitStats(t, "the end of the old link", func(s relay.Stats) bool { return s.Links == 0 && s.Players == 0 && s.Flows == 0 })
	linktest.Write(t, joined, "still")
	linktest.Expect(t, joined, "still")
}

func TestMove_ServerThatWasLeftBringsNoPlayers(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	old := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	// Another allocation keeps the link.
	d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	player := d.Join(old)
	linktest.Write(t, player, "hi")
	linktest.Expect(t, player, "hi")
	panel, server := addServer(d)
	moveAllocations(d, 1, panel.Server)
	server.AwaitStats(t, "the new link", func(s relay.Stats) bool { return s.Links == 1 })
	if err := linktest.Refusal(t, old); err == nil {
		t.Error("a player was served for a tunnel server that the allocation has left")
	}
	// The old tunnel server disconnects the remaining players when the panel says so.
	d.Panel.Remove(1)
	if err := linktest.ReadToEnd(player); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the player's stream ended with %v", err)
	}
}
