package link_test

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay"
)

// allowing are the options of a data plane whose agent has an allow-list and resolves
// names to a loopback address.
func allowing(t *testing.T, entries, ownPorts []string) linktest.Options {
	list, err := target.ParseAllowList(entries, ownPorts)
	if err != nil {
		t.Fatal(err)
	}
	return linktest.Options{Links: func(o *link.Options) {
		o.Targets = target.NewDialer(target.Options{
			Allow: list.Check, AllowAddress: list.CheckAddress, WatchAllow: list.Watch,
			Resolver: linetest.Resolver(t, "127.0.0.1"),
		})
	}}
}

func TestAllow_PortsOfThisMachine(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost", "Game.Localhost.", "::ffff:127.0.0.1", "game.test"} {
		t.Run(host, func(t *testing.T) {
			var reached atomic.Int64
			ssh := linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) { reached.Add(1); linktest.Echo(c) })
			dns := linktest.UDPGame(t, 0, func(b []byte, _ netip.AddrPort) []byte { reached.Add(1); return b })
			game := linktest.Game(t, "127.0.0.1", linktest.Echo)
			udpGame := linktest.UDPGame(t, 0, linktest.EchoUDP)
			d := linktest.New(t, allowing(t, []string{"game.test"}, []string{strconv.Itoa(game), strconv.Itoa(udpGame)}))
			at := func(a *types.ClientAllocation) { a.LocalHost = host }
			tcp, udp := d.Publish(types.ProtocolTCP, game, at), d.Publish(types.ProtocolUDP, udpGame, at)
			d.Greet(tcp)
			linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", udp), []byte("x"))

			lead(d, 0, ssh)
			lead(d, 1, dns)
			_ = linktest.Refusal(t, tcp)
			_, _ = linktest.DialUDP(t, "127.0.0.1", udp).Write([]byte("x"))
			d.Server.AwaitStats(t, "the refused flow's end", func(s relay.Stats) bool { return s.FlowsOpened >= 2 && s.Flows <= 1 })
			for id := int64(1); id <= 2; id++ {
				var reason string
				if host == "game.test" { // It is on the list, but leads here.
					reason = *d.AwaitTarget(id, types.TargetDown).TargetReason
				} else {
					reason = *d.AwaitReport(id, types.ReportFailed).Reason
				}
				if !strings.Contains(reason, "eclitunnel run --allow-ports "+strconv.Itoa(game)) {
					t.Errorf("the reason is %q", reason)
				}
			}
			if n := reached.Load(); n != 0 {
				t.Errorf("%d reached a port that is not allowed", n)
			}
		})
	}
}

func TestAllow_PortsOfOtherHosts(t *testing.T) {
	game := linktest.Game(t, "127.0.0.1", linktest.Echo)
	d := linktest.New(t, allowing(t, []string{"game.test:" + strconv.Itoa(game), "192.0.2.0/24:25565", "[2001:db8::5]:2456-2458"}, nil))
	d.Greet(d.Publish(types.ProtocolTCP, game, func(a *types.ClientAllocation) { a.LocalHost = "game.test" }))
	for _, c := range []struct {
		host string
		port int
		flag string // That allows it; "": it is allowed.
	}{
		{"192.0.2.7", 25565, ""},
		{"192.0.2.7", 22, "--allow 192.0.2.7:22"},
		{"2001:db8::5", 2457, ""},
		{"2001:db8::5", 2459, "--allow [2001:db8::5]:2459"},
		{"game.test", 22, "--allow game.test:22"},
		{"GAME.test.", game, ""},
		{"192.0.3.7", 25565, "--allow 192.0.3.7:25565"},
	} {
		d.Mu.Lock()
		d.Allocations[0].LocalHost, d.Allocations[0].LocalPort = c.host, c.port
		d.Mu.Unlock()
		d.Apply()
		if c.flag == "" {
			d.AwaitReport(1, types.ReportReady)
		} else if r := d.AwaitReport(1, types.ReportFailed); !strings.Contains(*r.Reason, c.flag) {
			t.Errorf("%s port %d: the reason is %q", c.host, c.port, *r.Reason)
		}
	}
}
