package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// The two ends of the cable between a tunnel server's machine and a home.
const (
	publicSide = "10.78.0.1"
	homeSide   = "10.78.0.2"
	movedTo    = "10.78.0.3"
)

// inOwnNetwork marks the process in which a test runs that has a network
// namespace to itself.
const inOwnNetwork = "ECLITUNNEL_TEST_OWN_NETWORK"

// ownNetwork runs the rest of a test in a network namespace of its own, in a
// process of its own, and reports whether this is that process.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inOwnNetwork) != "" {
		return true
	}
	if err := cluster.CanPlace(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), inOwnNetwork+"=1", "ECLITUNNEL_BIN="+binaries)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// home is a machine behind a cable.
type home struct {
	*cluster.Place
	t *testing.T
}

// newHome lays the cable.
func newHome(t *testing.T) *home {
	t.Helper()
	p, err := cluster.NewPlace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, err := range []error{
		cluster.Feed(t.Context(), "ip", "link set lo up\n", "-batch", "-"),
		p.Cable(t.Context(), "public0", netip.MustParseAddr(publicSide), netip.MustParseAddr(homeSide)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &home{p, t}
}

// do is Do, or the test's end.
func (h *home) do(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

// rules replaces the rules of the cable's home end.
func (h *home) rules(rules ...string) {
	h.t.Helper()
	script := "table ip cable {}\ndelete table ip cable\ntable ip cable {\n"
	for hook, device := range map[string]string{"input": "iifname", "output": "oifname"} {
		script += fmt.Sprintf("chain %s { type filter hook %s priority 0;\n", hook, hook)
		for _, rule := range rules {
			script += fmt.Sprintf("%s %s %s;\n", device, cluster.PlaceDevice, rule)
		}
		script += "}\n"
	}
	h.do(func() error { return cluster.Feed(h.t.Context(), "nft", script+"}\n", "-f", "-") })
}

// move gives home another address.
func (h *home) move(addr string) {
	h.t.Helper()
	lines := fmt.Sprintf("addr flush dev %s\naddr add %s/24 dev %[1]s\n", cluster.PlaceDevice, addr)
	h.do(func() error { return cluster.Feed(h.t.Context(), "ip", lines, "-batch", "-") })
}

// apart is a world whose tunnel server and agent are on machines of their own,
// and a game at home that echoes datagrams.
type apart struct {
	*world
	home *home
	// public is where players reach the game; at tells from which port the game
	// last heard a player.
	public string
	at     func() int
}

func newApart(t *testing.T) *apart {
	t.Helper()
	a := &apart{world: &world{}, home: newHome(t)}
	var err error
	if a.dir, err = cluster.NewDir(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	ctx := within(t, 3*time.Minute)
	const listen, relay, first = 18080, 17443, 18100
	if a.panel, err = cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: binaries, Dir: a.dir, Listen: listen, PortFirst: first, PortLast: first + 10,
	}); err != nil {
		t.Fatal(err)
	}
	a.logOnFailure(t)
	if err := a.panel.LiftRules(ctx); err != nil {
		t.Fatal(err)
	}
	passOn(t, net.JoinHostPort(publicSide, fmt.Sprint(listen)), net.JoinHostPort("127.0.0.1", fmt.Sprint(listen)))
	a.server = cluster.NewTunnelServer(binaries, a.dir, "edge", relay, nil)
	a.server.Env = []string{"ECLITUNNEL_RELAY_LISTEN=" + net.JoinHostPort(publicSide, fmt.Sprint(relay)), "ECLITUNNEL_PUBLIC_HOST=" + publicSide}
	if err := a.server.EnrollServer(ctx, a.panel); err != nil {
		t.Fatal(err)
	}
	if a.serving, err = a.server.Start(); err != nil {
		t.Fatal(err)
	}
	a.agent = cluster.NewAgent(binaries, a.dir, "home-server", nil)
	if err := a.agent.Enroll(ctx, a.panel); err != nil {
		t.Fatal(err)
	}
	a.agent.Env = []string{fmt.Sprintf("ECLITUNNEL_PANEL=http://%s:%d", publicSide, listen), "ECLITUNNEL_INSECURE=true"}
	var game net.PacketConn
	a.home.do(func() error {
		if game, err = new(net.ListenConfig).ListenPacket(ctx, "udp", "127.0.0.1:0"); err != nil {
			return err
		}
		a.running, err = a.agent.Start()
		return err
	})
	if err := errors.Join(a.panel.AwaitOnline(ctx, a.server.Device.ID, a.serving), a.panel.AwaitOnline(ctx, a.agent.Device.ID, a.running)); err != nil {
		t.Fatal(err)
	}
	a.at = echoPackets(t, game)
	a.public = a.expose(t, types.CreateUDP, game.LocalAddr().(*net.UDPAddr).Port, nil)
	return a
}

// echoPackets has a game answer with what it gets, and returns from which port
// it got that last.
func echoPackets(t *testing.T, game net.PacketConn) func() int {
	var mu sync.Mutex
	var last int
	var playing sync.WaitGroup
	playing.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := game.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			last = from.(*net.UDPAddr).Port
			mu.Unlock()
			_, _ = game.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() {
		game.Close()
		playing.Wait()
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

// passOn passes TCP connections from one address on to another.
func passOn(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					near.Close()
					far.Close()
				}()
			}
		}
	}()
}

// askPacket sends a datagram until it comes back.
func askPacket(t *testing.T, player net.Conn, text string) {
	t.Helper()
	b := make([]byte, 2048)
	for deadline := time.Now().Add(patience); ; {
		if _, err := player.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		_ = player.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := player.Read(b); err == nil && bytes.Equal(b[:n], []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q does not come back", text)
		}
	}
}
