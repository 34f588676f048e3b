package relay_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// draining is an allocation that drains.
func draining(id int64, client uuid.UUID, protocol types.Protocol, port int) types.ServerAllocation {
	a := relaytest.Allocation(id, client, protocol, port)
	until := time.Now().Add(time.Hour)
	a.DrainUntil = &until
	return a
}

func TestDrain_AnEmptyPortRefusesPlayersAndHasDrained(t *testing.T) {
	p, s, client, port := start(t, nil)
	udp := relaytest.Allocation(2, client, types.ProtocolUDP, port)
	p.Put(udp)
	p.AwaitReport(2, types.ReportReady)
	p.AwaitPlayers(0)
	p.Put(draining(1, client, types.ProtocolTCP, port), draining(2, client, types.ProtocolUDP, port))
	p.AwaitDrained(1)
	p.AwaitDrained(2)
	if !refused(port) {
		t.Error("a player can connect")
	}
	player, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	if _, err := player.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	s.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.Dropped["draining"] == 1 && s.FlowsOpened == 0 })

	// It is told anew on another control channel, and by another process.
	p.Disconnect(channel.CloseRestarting, nil)
	p.AwaitHellos(2)
	p.AwaitDrained(1)

	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port), udp)
	p.AwaitReport(1, types.ReportReady)
	p.AwaitReport(2, types.ReportReady)
	if p.Drained(1) || p.Drained(2) || refused(port) {
		t.Error("it does not take players again")
	}
}

func TestDrain_APortInUseAfterItIsReportedAndHealed(t *testing.T) {
	p, _, client, port := start(t, nil)
	p.Put(draining(1, client, types.ProtocolTCP, port))
	p.AwaitDrained(1)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
	p.AwaitReport(1, types.ReportFailed)
	// One that drains again is not in want of its port.
	p.Put(draining(1, client, types.ProtocolTCP, port))
	p.AwaitDrained(1)
	p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
	p.AwaitReport(1, types.ReportFailed)
	_ = l.Close()
	p.AwaitReport(1, types.ReportReady)
}

func TestDrain_OneThatWasNeverOpenHasDrained(t *testing.T) {
	p, s, client, _ := start(t, nil)
	port := relaytest.FreePort(t)
	p.Put(draining(2, client, types.ProtocolTCP, port), draining(3, client, types.ProtocolUDP, port))
	p.AwaitDrained(2)
	p.AwaitDrained(3)
	if n := s.Stats().Ports[publicport.State{Protocol: types.ProtocolUDP, Draining: true}]; n != 1 {
		t.Errorf("%d UDP ports drain", n)
	}
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, port))
	p.AwaitReport(2, types.ReportReady)
	if refused(port) {
		t.Error("it does not take players")
	}
}
