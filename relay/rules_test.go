package relay_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// ruled returns an allocation with rules.
func ruled(a types.ServerAllocation, r types.AllocationRules) types.ServerAllocation {
	a.Rules = &r
	return a
}

// joinFrom connects a player from an address of this machine, who may be reset while
// they connect.
func joinFrom(t *testing.T, address string, port int) (net.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c, err := dialer.Dial("tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// enters reports whether a player from an address stays connected until the tunnel
// client is asked for a data connection: here, where there is no link, whether they are
// refused for another reason than the lists.
func enters(t *testing.T, s *relaytest.Server, address string, port int) bool {
	t.Helper()
	before := s.Stats().PlayersRefused["denied"]
	c, err := joinFrom(t, address, port)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the player from %s sees %v", address, err)
	}
	return s.Stats().PlayersRefused["denied"] == before
}

func TestServer_AddressListsSayWhoMayEnter(t *testing.T) {
	p, s, client, port := start(t, nil)
	for name, c := range map[string]struct {
		rules    types.AllocationRules
		in, deny []string
	}{
		"none":             {types.AllocationRules{}, []string{"127.0.0.1", "127.0.0.2"}, nil},
		"an address":       {types.AllocationRules{Allow: &[]string{"127.0.0.2"}}, []string{"127.0.0.2"}, []string{"127.0.0.1", "127.0.0.3"}},
		"a prefix":         {types.AllocationRules{Allow: &[]string{"127.0.1.0/24"}}, []string{"127.0.1.9"}, []string{"127.0.0.1"}},
		"denied":           {types.AllocationRules{Deny: &[]string{"127.0.0.2", "127.1.0.0/16"}}, []string{"127.0.0.1"}, []string{"127.0.0.2", "127.1.2.3"}},
		"denied of listed": {types.AllocationRules{Allow: &[]string{"127.0.0.0/8"}, Deny: &[]string{"127.0.0.3"}}, []string{"127.0.0.1"}, []string{"127.0.0.3"}},
		"of no family":     {types.AllocationRules{Allow: &[]string{"2001:db8::/32"}}, nil, []string{"127.0.0.1"}},
		"mapped":           {types.AllocationRules{Deny: &[]string{"::ffff:127.0.0.2"}}, []string{"127.0.0.1"}, []string{"127.0.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), c.rules))
			p.AwaitReport(1, types.ReportReady)
			for _, address := range c.in {
				if !enters(t, s, address, port) {
					t.Errorf("%s is denied", address)
				}
			}
			for _, address := range c.deny {
				if enters(t, s, address, port) {
					t.Errorf("%s may enter", address)
				}
			}
		})
	}
}

func TestServer_AChangeOfTheListsReachesPlayersWhoAreIn(t *testing.T) {
	p, s, client, port := start(t, nil)
	udpPort := relaytest.FreePort(t)
	p.Put(relaytest.Allocation(2, client, types.ProtocolUDP, udpPort))
	p.AwaitReport(2, types.ReportReady)
	openLink(t, p, s, client, 1)
	var players [2]net.Conn
	for i, address := range []string{"127.0.0.2", "127.0.0.3"} {
		var err error
		if players[i], err = joinFrom(t, address, port); err != nil {
			t.Fatal(err)
		}
		udp, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: udpPort})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = udp.Close() })
		_, _ = udp.Write([]byte("hello"))
	}
	s.AwaitStats(t, "two players of each protocol", func(s relay.Stats) bool { return s.Players == 2 && s.Flows == 2 })

	rules := types.AllocationRules{Deny: &[]string{"127.0.0.2"}}
	p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), rules))
	p.Put(ruled(relaytest.Allocation(2, client, types.ProtocolUDP, udpPort), rules))
	s.AwaitStats(t, "one player of each protocol", func(s relay.Stats) bool { return s.Players == 1 && s.Flows == 1 })
	_ = players[0].SetDeadline(time.Now().Add(relaytest.Patience))
	wantReset(t, players[0])
	_ = players[1].SetReadDeadline(time.Now())
	if _, err := players[1].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other player sees %v", err)
	}
}

func TestServer_RulesItDoesNotUnderstandCloseThePort(t *testing.T) {
	p, _, client, port := start(t, nil)
	for _, rules := range []types.AllocationRules{
		{Allow: &[]string{"game.example.com"}},
		{Deny: &[]string{"192.0.2.0/33"}},
		{Allow: &[]string{"192.0.2.7"}, Deny: &[]string{""}},
		{PlayerDownloadBitsPerSecond: new(types.BitsPerSecond)},
	} {
		p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), rules))
		if reason := p.AwaitReport(1, types.ReportFailed).Reason; reason == nil || *reason == "" {
			t.Error("no reason")
		}
		if !refused(port) {
			t.Error("the port is open")
		}
		p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
		p.AwaitReport(1, types.ReportReady)
		await.Until(t, "the port is open again", func() bool { return !refused(port) })
	}
}
