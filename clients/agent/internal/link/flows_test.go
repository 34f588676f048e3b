package link_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
)

// sees is a game that answers everybody with the address at which it sees them.
func sees(_ []byte, from netip.AddrPort) []byte { return []byte(from.String()) }

// quiet is sees for players, and does not answer a flood.
func quiet(payload []byte, from netip.AddrPort) []byte {
	if string(payload) == "flood" {
		return nil
	}
	return sees(payload, from)
}

// udpFrom is a player at an address of this machine.
func udpFrom(t *testing.T, address string, port int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Skipf("send from %s: %v", address, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// seen returns where a game sees a player, who asks again and again until it answers.
func seen(t *testing.T, player *net.UDPConn) (at string) {
	t.Helper()
	b := make([]byte, 64)
	await.Until(t, "an answer", func() bool {
		_, _ = player.Write([]byte("play"))
		_ = player.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := player.Read(b)
		at = string(b[:n])
		return err == nil
	})
	return at
}

func TestFlows_AFloodLeavesFilesForNewcomers(t *testing.T) {
	const files, ofAllocation = 128, 48 // Players may take 96 files, one allocation 48.
	for name, announced := range map[string]int{
		"the tunnel server knows": 84,
		"it does not":             1 << 20, // As one of an earlier version.
	} {
		for flood, c := range map[string]struct {
			serve func([]byte, netip.AddrPort) []byte
			from  func(i int) string
		}{
			"answered, of one address": {sees, func(int) string { return "127.0.1.1" }},
			"answered, forged":         {sees, func(i int) string { return fmt.Sprintf("127.9.%d.%d", i/250, 1+i%250) }},
			"unanswered, forged":       {quiet, func(i int) string { return fmt.Sprintf("127.9.%d.%d", i/250, 1+i%250) }},
		} {
			t.Run(name+"/"+flood, func(t *testing.T) {
				var log logged
				d := linktest.New(t, linktest.Options{
					Server: func(o *relay.Options) { o.Limits.Unanswered = 20_000 }, // All are of the agent's machine.
					Links: func(o *link.Options) {
						o.Limits.OpenFlows = announced
						o.Targets = target.NewDialer(target.Options{Allow: linktest.AllowLoopback, Files: files, Logger: log.logger()})
					},
				})
				port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, c.serve), nil)
				other := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, sees), nil)
				playing := udpFrom(t, "127.0.2.1", port)
				seen(t, playing)
				before := seen(t, playing)
				for round := range 4 {
					for i := range 3 * ofAllocation {
						attacker := udpFrom(t, c.from(round*3*ofAllocation+i), port)
						_, _ = attacker.Write([]byte("flood"))
						_ = attacker.Close()
					}
					newcomer := udpFrom(t, fmt.Sprintf("127.0.3.%d", 1+round), port)
					seen(t, newcomer)
					seen(t, newcomer)
				}
				seen(t, udpFrom(t, "127.0.4.1", other))
				if after := seen(t, playing); after != before {
					t.Errorf("the game sees a player at %s, and then at %s", before, after)
				}
				// Flows that the agent has closed end at the tunnel server as well.
				d.Server.AwaitStats(t, "no more flows than files", func(s relay.Stats) bool { return s.Flows <= ofAllocation+1 })
				if announced < files {
					// It knows, and closes flows before the agent has to.
					d.Server.AwaitStats(t, "no more flows than half of what the agent can have", func(s relay.Stats) bool { return int(s.Flows) <= announced/2+1 })
				}
				if announced > files && log.Count("its share of the files") != 1 {
					t.Errorf("%d log lines about it", log.Count("its share of the files"))
				}
			})
		}
	}
}
