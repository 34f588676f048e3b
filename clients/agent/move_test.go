package agent

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// elsewhere adds a second tunnel server to a data plane.
func (d *dataPlaneTest) elsewhere() (*relaytest.Panel, *relaytest.Server) {
	d.t.Helper()
	panel := relaytest.NewPanel(d.t)
	server := relaytest.Start(d.t, panel, nil)
	panel.AwaitHellos(1)
	panel.PutClient(d.client, 1)
	d.mu.Lock()
	d.servers = append(d.servers, types.ClientServer{
		ID: panel.Server, Address: server.Address, Fingerprint: server.Fingerprint(),
		Ticket: panel.Ticket(d.client, 1, nil),
	})
	d.mu.Unlock()
	return panel, server
}

// move brings the first n allocations to a tunnel server, as the panel tells the
// agent; leaving are those that still have players.
func (d *dataPlaneTest) move(n int, to uuid.UUID, leaving ...uuid.UUID) {
	d.mu.Lock()
	for i := range d.allocations[:n] {
		d.allocations[i].ServerID, d.allocations[i].Leaving = to, nil
		if len(leaving) > 0 {
			d.allocations[i].Leaving = &leaving
		}
	}
	d.mu.Unlock()
	d.apply()
}

// drain has the old place of an allocation take no new players.
func (d *dataPlaneTest) drain(id int64, protocol types.Protocol, port int) {
	until := time.Now().Add(time.Hour)
	a := relaytest.Allocation(id, d.client, protocol, port)
	a.DrainUntil = &until
	d.panel.Put(a)
}

func TestMove_PlayersStayAtTheOldPlaceAndNewOnesJoinAtTheNew(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	old := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	oldUDP := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	player, flow := d.join(old), playDatagrams(t, "127.0.0.1", oldUDP)
	say(t, player, "before")
	hear(t, player, "before")
	ask(t, flow, []byte("before"))

	panel, server := d.elsewhere()
	port, portUDP := relaytest.FreePort(t), relaytest.FreePort(t)
	panel.Put(relaytest.Allocation(1, d.client, types.ProtocolTCP, port), relaytest.Allocation(2, d.client, types.ProtocolUDP, portUDP))
	d.move(2, panel.Server, d.panel.Server)
	server.AwaitStats(t, "the new link", func(s relay.Stats) bool { return s.Links == 1 })
	if d.server.Stats().Links != 1 {
		t.Fatal("the old link went before its players")
	}
	// The old place has not heard of it yet: whom it takes is served.
	late := d.join(old)
	say(t, late, "late")
	hear(t, late, "late")

	d.drain(1, types.ProtocolTCP, old)
	d.drain(2, types.ProtocolUDP, oldUDP)
	d.panel.AwaitReport(1, types.ReportReady)
	d.panel.AwaitReport(2, types.ReportReady)
	if err := refusal(t, old); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new player at the old place sees %v, want a refusal", err)
	}
	stranger := playDatagrams(t, "127.0.0.1", oldUDP)
	if _, err := stranger.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	d.server.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.Dropped["draining"] == 1 })
	joined, joinedUDP := d.join(port), playDatagrams(t, "127.0.0.1", portUDP)
	say(t, joined, "new")
	hear(t, joined, "new")
	ask(t, joinedUDP, []byte("new"))
	say(t, player, "after")
	hear(t, player, "after")
	if got := ask(t, flow, []byte("after")); string(got) != "after" {
		t.Errorf("the flow was answered %q", got)
	}
	if d.panel.Drained(1) || d.panel.Drained(2) {
		t.Error("reported to have drained with players on it")
	}
	d.panel.AwaitPlayers(3)

	_ = late.Close()
	_ = player.CloseWrite()
	if err := howItEnds(player); err != nil {
		t.Errorf("the player's stream ended with %v", err)
	}
	d.panel.AwaitDrained(1)
	d.panel.Remove(1, 2)
	d.move(2, panel.Server)
	d.server.AwaitStats(t, "the end of the old link", func(s relay.Stats) bool { return s.Links == 0 && s.Players == 0 && s.Flows == 0 })
	say(t, joined, "still")
	hear(t, joined, "still")
}

func TestMove_WhatHasBeenLeftForGoodBringsNobody(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	old := d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	// Another allocation keeps the link.
	d.publish(types.ProtocolTCP, game(t, "127.0.0.1", echo), nil)
	player := d.join(old)
	say(t, player, "hi")
	hear(t, player, "hi")
	panel, server := d.elsewhere()
	d.move(1, panel.Server)
	server.AwaitStats(t, "the new link", func(s relay.Stats) bool { return s.Links == 1 })
	if err := refusal(t, old); err == nil {
		t.Error("a player was served for a tunnel server that the allocation has left")
	}
	// Cutting off those who play is the old tunnel server's, when the panel says so.
	d.panel.Remove(1)
	if err := howItEnds(player); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the player's stream ended with %v", err)
	}
}

func TestAgent_ReportsAnewWhatHasMoved(t *testing.T) {
	r := start(t)
	c := r.channel(t)
	c.send(t, snapshot(1, 1, 2))
	r.appliedIDs(t)
	r.links.report(readyReport(1), readyReport(2))
	c.status(t)
	// It was linked there already: nothing changes but the tunnel server.
	moved := change(2, []int64{1}, nil)
	moved.Allocations[0].ServerID = uuid.New()
	c.send(t, moved)
	if report := c.status(t); report.Revision != 2 || len(report.Allocations) != 1 || report.Allocations[0] != readyReport(1) {
		t.Errorf("report %+v", report)
	}
}
