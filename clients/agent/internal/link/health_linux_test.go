package link_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// listenUDP binds a UDP socket for games at an address, of IPv6 for IPv6 alone.
func listenUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	listen := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
		if network == "udp6" {
			_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) })
		}
		return err
	}}
	network := "udp4"
	if strings.HasPrefix(address, "[") {
		network = "udp6"
	}
	c, err := listen.ListenPacket(context.Background(), network, address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

func TestReports_ARefusedDatagramCountsMoreThanTheSockets(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	wrong := listenUDP(t, "[::]:0")
	local := wrong.LocalAddr().(*net.UDPAddr).Port
	port := d.Publish(types.ProtocolUDP, local, nil)
	d.AwaitTarget(1, types.TargetUp) // The sockets show one, as if it were for IPv4 too.
	player := linktest.DialUDP(t, "127.0.0.1", port)
	if _, err := player.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if r := d.AwaitTarget(1, types.TargetDown); !strings.HasPrefix(*r.TargetReason, "nothing listens on 127.0.0.1:") {
		t.Errorf("the reason is %q", *r.TargetReason)
	}
	linktest.UDPGame(t, local, linktest.EchoUDP)
	if answer := linktest.Ask(t, player, []byte("y")); string(answer) != "y" {
		t.Errorf("the player got %q", answer)
	}
	d.AwaitTarget(1, types.TargetUp)
}

// A game may connect its socket to the player whom it serves, as nc does.
func TestReports_AUDPGameThatServesOnePlayerIsThere(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	game := listenUDP(t, "127.0.0.1:0")
	port := d.Publish(types.ProtocolUDP, game.LocalAddr().(*net.UDPAddr).Port, nil)
	d.AwaitTarget(1, types.TargetUp)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	if _, err := player.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, from, err := game.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != "hello" {
		t.Fatalf("the game got %q first (%v)", b[:n], err)
	}
	connectUDP(t, game, from)
	if _, err := game.Write([]byte("welcome")); err != nil {
		t.Fatal(err)
	}
	if answer := linktest.Answer(t, player); string(answer) != "welcome" {
		t.Errorf("the player got %q", answer)
	}
	// A second game starts: that it is seen shows that the sockets have been read since.
	second := listenUDP(t, "127.0.0.1:0")
	local := second.LocalAddr().(*net.UDPAddr)
	_ = second.Close()
	d.Publish(types.ProtocolUDP, local.Port, nil)
	d.AwaitTarget(2, types.TargetDown)
	listenUDP(t, local.String())
	d.AwaitTarget(2, types.TargetUp)
	for _, r := range d.Links.Reports() {
		if r.ID == 1 && (r.Target == nil || *r.Target != types.TargetUp) {
			t.Errorf("the first one is reported as %v", r.Target)
		}
	}
}

func connectUDP(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.Connect(int(fd), &unix.SockaddrInet4{Addr: to.Addr().Unmap().As4(), Port: int(to.Port())})
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
