package link_test

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

func TestLink_LeavesATunnelServersAddressThatIsOfNoUse(t *testing.T) {
	for name, serve := range linetest.Useless {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
				o.Resolver = linetest.Resolver(t, "127.0.0.2", "127.0.0.3", "127.0.0.1")
				o.Limits.DialTimeout = time.Second
			}})
			_, text, _ := net.SplitHostPort(d.Server.Address)
			port, _ := strconv.Atoi(text)
			linetest.Listen(t, "127.0.0.2", port, serve)
			linetest.Listen(t, "127.0.0.3", port, serve)
			d.Servers[0].Address = net.JoinHostPort("relay.test", text)
			public := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
			d.Greet(public) // Its data connection takes the link's address.
			d.Server.AwaitStats(t, "the data connection", func(s relay.Stats) bool { return s.Handshakes >= 1 })
		})
	}
}

func TestLink_PassesAFilterOfLargeTLSHellos(t *testing.T) {
	for name, reset := range map[string]bool{"swallowed": false, "reset": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := linktest.New(t, linktest.Options{Links: func(o *link.Options) { o.Limits.DialTimeout = 2 * time.Second }})
			f := linetest.FilterHellos(t, d.Server.Address, reset)
			d.Servers[0].Address = f.Address
			d.Greet(d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil))
			// UDP does not pass the filter: the datagrams take a data connection.
			port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
			player := linktest.DialUDP(t, "127.0.0.1", port)
			if got := linktest.Ask(t, player, []byte("hello")); string(got) != "hello" {
				t.Errorf("answered %q", got)
			}
			if n := f.Filtered(); n != 1 {
				t.Errorf("%d hellos did not pass, want the link's first alone", n)
			}
		})
	}
}

func namedTargets(t *testing.T) func(*link.Options) {
	return func(o *link.Options) {
		o.Targets = target.NewDialer(target.Options{
			Allow:    func(string, int) error { return nil },
			Resolver: linetest.Resolver(t, "127.0.0.1", "127.0.0.2"),
		})
	}
}

func named(a *types.ClientAllocation) { a.LocalHost = "game.test" }

func TestTunnel_TheNextPlayerGetsAnotherAddressOfAGameThatSaysNothing(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"reset":  linetest.Useless["resetting"],
		"closed": func(net.Conn) {},
		"half-closed": func(conn net.Conn) {
			_ = conn.(*net.TCPConn).CloseWrite()
			linetest.Silent(conn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := linktest.New(t, linktest.Options{Links: namedTargets(t)})
			local := linktest.Game(t, "127.0.0.2", linktest.Echo)
			linetest.Listen(t, "127.0.0.1", local, serve)
			port := d.Publish(types.ProtocolTCP, local, named)
			if err := linktest.Refusal(t, port); err == nil && name == "reset" {
				t.Error("the first player was not reset")
			}
			for range 3 {
				_ = d.Greet(port).Close()
			}
		})
	}
}

func TestTunnel_DatagramsReachTheAddressOfANameThatAnswers(t *testing.T) {
	d := linktest.New(t, linktest.Options{Links: namedTargets(t)})
	local := relaytest.FreePort(t)
	game, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: local})
	if err != nil {
		t.Skip(err)
	}
	defer game.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := game.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = game.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	port := d.Publish(types.ProtocolUDP, local, named)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	for tries := 0; ; tries++ {
		_, _ = player.Write([]byte("now?"))
		if !linktest.Silent(player, 100*time.Millisecond) {
			break
		}
		if tries == 50 {
			t.Fatal("no answer from the game's other address")
		}
	}
	// Another player's flow begins there.
	second := linktest.DialUDP(t, "127.0.0.1", port)
	if got := linktest.Ask(t, second, []byte("hello")); string(got) != "hello" {
		t.Errorf("answered %q", got)
	}
}
