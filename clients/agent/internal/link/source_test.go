package link_test

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestPlayers_HaveOneAddressOverTCPAndUDP(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		t.Skip("this system has one address on its loopback")
	}
	d := linktest.New(t, linktest.Options{})
	tcp := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
	}), nil)
	answer := func(_ []byte, from netip.AddrPort) []byte { return []byte(from.Addr().Unmap().String()) }
	udp := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, answer), nil)
	named := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, answer),
		func(a *types.ClientAllocation) { a.LocalHost = "localhost" })

	used := map[string]string{}
	for _, player := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		join := func() string {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(player)}}
			c, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			seen, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			return string(seen)
		}
		ask := func(port int) string {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(player)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return string(linktest.Ask(t, c, []byte("where from?")))
		}
		first := join()
		for what, seen := range map[string]string{
			"TCP again": join(), "UDP": ask(udp), "UDP again": ask(udp), "UDP to localhost": ask(named),
		} {
			if seen != first {
				t.Errorf("%s is seen at %s over TCP and at %s over %s", player, first, seen, what)
			}
		}
		if other, ok := used[first]; ok || first == "127.0.0.1" {
			t.Errorf("%s is seen at %s, as %q is", player, first, other)
		}
		used[first] = player
	}
}
