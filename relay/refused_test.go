package relay_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// shoot sends n datagrams to a port, and returns once as many have been dropped.
func shoot(t *testing.T, s *relaytest.Server, port int, reason string, n uint64) {
	t.Helper()
	udp, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	before := s.Stats().Dropped[reason]
	for range n {
		_, _ = udp.Write([]byte("hello"))
	}
	s.AwaitStats(t, "datagrams dropped", func(s relay.Stats) bool { return s.Dropped[reason] == before+n })
}

func TestServer_ReportsWhatItRefusesOnce(t *testing.T) {
	p, s, client, port := start(t, nil)
	denied, idle := relaytest.FreePort(t), relaytest.FreePort(t)
	everybody := types.AllocationRules{Deny: &types.AddressList{"127.0.0.0/8"}}
	p.Put(ruled(relaytest.Allocation(2, client, types.ProtocolUDP, denied), everybody),
		relaytest.Allocation(3, client, types.ProtocolUDP, idle))
	p.AwaitReport(2, types.ReportReady)
	wantRefusal(t, port) // There is no link.
	shoot(t, s, denied, "denied", 100)
	p.AwaitRefused(1, "no_link", 1)
	p.AwaitRefused(2, "denied", 100)

	// What is refused without a channel is reported on the next one, and nothing twice.
	p.Disconnect(channel.CloseRestarting, errTest)
	p.AwaitDisconnected()
	shoot(t, s, denied, "denied", 150)
	shoot(t, s, idle, "no_link", 3)
	wantRefusal(t, port)
	p.Reconnect()
	p.AwaitRefused(1, "no_link", 2)
	p.AwaitRefused(2, "denied", 250)
	p.AwaitRefused(3, "no_link", 3)
}

// Series of allocations come and go, and yet a registry must know the collector again when
// the tunnel server ends.
func TestServer_MetricsNameAllocationsThatRefuseMuch(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for range 2 {
		p, s, client, port := start(t, func(o *relay.Options) { o.Metrics = registry })
		denied := relaytest.FreePort(t)
		p.Put(ruled(relaytest.Allocation(2, client, types.ProtocolUDP, denied), types.AllocationRules{Deny: &types.AddressList{"127.0.0.0/8"}}))
		p.AwaitReport(2, types.ReportReady)
		wantRefusal(t, port)
		shoot(t, s, denied, "denied", 100)
		want := func(series string) {
			t.Helper()
			err := testutil.GatherAndCompare(registry, strings.NewReader(series),
				"eclitunnel_relay_allocation_players_refused_total", "eclitunnel_relay_allocation_datagrams_dropped_total")
			if err != nil {
				t.Error(err)
			}
		}
		now := time.Now()
		want("")
		s.TickPorts(now.Add(2 * time.Minute))
		want(`
			# HELP eclitunnel_relay_allocation_datagrams_dropped_total Datagrams dropped since the public port was opened, by reason, for the allocations that have refused most in the last minutes.
			# TYPE eclitunnel_relay_allocation_datagrams_dropped_total counter
			eclitunnel_relay_allocation_datagrams_dropped_total{allocation="2",reason="denied"} 100
			`)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}
