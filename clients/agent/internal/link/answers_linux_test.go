package link_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// machineAddress returns an address of this machine that is not on the loopback.
func machineAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		if ip := addr.(*net.IPNet).IP.To4(); ip != nil && !ip.IsLoopback() {
			return ip.String()
		}
	}
	t.Skip("this machine has no network")
	return ""
}

// socketAt listens at any port of an address.
func socketAt(t *testing.T, ip string) (*net.UDPConn, int) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).Port
}

// socketsAt listens at two addresses, at a port that is free at both.
func socketsAt(t *testing.T, first, second string) (a, b *net.UDPConn, port int) {
	t.Helper()
	for tries := 0; ; tries++ {
		a, port = socketAt(t, first)
		b, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(second), Port: port})
		if err == nil {
			t.Cleanup(func() { _ = b.Close() })
			return a, b, port
		}
		if tries == 20 {
			t.Fatal(err)
		}
	}
}

// answering runs a game that receives at one address and answers from another.
func answering(t *testing.T, receives, answers *net.UDPConn) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2048); ; {
			n, from, err := receives.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = answers.WriteToUDPAddrPort(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}()
	t.Cleanup(func() {
		_ = receives.Close()
		<-done
	})
}

func TestUDP_GamesAnswerFromAnyAddressOfTheirMachine(t *testing.T) {
	machine := machineAddress(t)
	for name, c := range map[string]struct{ target, receives, answers string }{
		"from where it is reached":           {"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		"from another of the loopback":       {"127.0.1.1", "127.0.1.1", "127.0.0.1"},
		"from the machine's":                 {"127.0.0.1", "127.0.0.1", machine},
		"from the loopback to the machine's": {machine, machine, "127.0.0.1"},
		"from where the system chooses":      {"127.0.1.1", "0.0.0.0", ""},
		"at the machine's":                   {machine, "0.0.0.0", ""},
		"at localhost":                       {"localhost", "127.0.0.1", "127.0.0.2"},
		"over IPv6":                          {"::1", "::1", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.receives == "::1" {
				if l, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
					t.Skip(err)
				} else {
					_ = l.Close()
				}
			}
			var receives, answers *net.UDPConn
			var port int
			if c.answers != "" && c.answers != c.receives {
				receives, answers, port = socketsAt(t, c.receives, c.answers)
			} else {
				receives, port = socketAt(t, c.receives)
				answers = receives
			}
			answering(t, receives, answers)
			d := linktest.New(t, linktest.Options{Links: allowAll})
			public := d.Publish(types.ProtocolUDP, port, func(a *types.ClientAllocation) { a.LocalHost = c.target })
			players := []*net.UDPConn{linktest.DialUDP(t, "127.0.0.1", public), linktest.DialUDP(t, "127.0.0.1", public)}
			for _, text := range []string{"first", "second", "third"} {
				for _, player := range players {
					if answer := linktest.Ask(t, player, []byte(text)); string(answer) != text {
						t.Fatalf("%q is answered with %q", text, answer)
					}
				}
			}
		})
	}
}

func TestUDP_OthersAreNotTheGame(t *testing.T) {
	machine := machineAddress(t)
	receives, port := socketAt(t, "127.0.0.1")
	received := make(chan netip.AddrPort, 16)
	go func() {
		for b := make([]byte, 2048); ; {
			_, from, err := receives.ReadFromUDPAddrPort(b)
			if err != nil {
				close(received)
				return
			}
			received <- netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		}
	}()
	d := linktest.New(t, linktest.Options{Links: allowAll})
	public := d.Publish(types.ProtocolUDP, port, nil)
	player := linktest.DialUDP(t, "127.0.0.1", public)
	if _, err := player.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	at := <-received
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", machine} { // At other ports.
		other, _ := socketAt(t, ip)
		if _, err := other.WriteToUDPAddrPort([]byte("not the game"), at); err != nil {
			t.Fatal(err)
		}
	}
	if !linktest.Silent(player, 200*time.Millisecond) {
		t.Error("the player receives from others than the game")
	}
	if _, err := receives.WriteToUDPAddrPort([]byte("the game"), at); err != nil {
		t.Fatal(err)
	}
	if answer := linktest.Answer(t, player); string(answer) != "the game" {
		t.Errorf("the player receives %q", answer)
	}
	_ = receives.Close()
	for range received { //nolint:revive // Until the game has ended.
	}
}

func TestUDP_SaysOnceThatAGameElsewhereDoesNotAnswer(t *testing.T) {
	machine := machineAddress(t)
	const words = "has not answered a player"
	for name, c := range map[string]struct {
		answers string // An address; "": none.
		want    int
	}{
		"from the target":       {machine, 0},
		"from another address":  {"127.0.0.1", 1},
		"from nowhere, as told": {"", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var port int
			var receives, answers *net.UDPConn
			switch c.answers {
			case "":
				_, port = socketAt(t, machine)
			case machine:
				receives, port = socketAt(t, machine)
				answering(t, receives, receives)
			default:
				receives, answers, port = socketsAt(t, machine, c.answers)
				answering(t, receives, answers)
			}
			var log logged
			idle := 1
			d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
				o.Targets = target.NewDialer(target.Options{
					Allow:  func(string, int) error { return nil },
					Logger: log.logger(),
					// The address is another machine's, which answers are not accepted from.
					Interfaces: func() ([]net.Addr, error) { return nil, nil },
				})
			}})
			public := d.Publish(types.ProtocolUDP, port, func(a *types.ClientAllocation) {
				a.LocalHost = machine
				a.Options.UDPIdleSeconds = &idle
			})
			for range 2 {
				player := linktest.DialUDP(t, "127.0.0.1", public)
				for range 4 {
					if _, err := player.Write([]byte("hello")); err != nil {
						t.Fatal(err)
					}
				}
			}
			await.Until(t, "arrival of all datagrams", func() bool { return d.Links.Stats().UDP.FromPlayers == 2*4*5 })
			await.Until(t, "end of the flows", func() bool { return d.Links.Stats().Flows == 0 })
			if n := log.Count(words); n != c.want {
				t.Errorf("said %d times, want %d: %s", n, c.want, log.String())
			}
		})
	}
}

// allowAll lets the links of a test dial any local host.
func allowAll(o *link.Options) {
	o.Targets = target.NewDialer(target.Options{Allow: func(string, int) error { return nil }})
}
