package link_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// awaitPath returns once sealed packets arrive in both directions.
func awaitPath(d *linktest.DataPlane) {
	d.T.Helper()
	d.Server.AwaitStats(d.T, "the path", func(s relay.Stats) bool { return s.Paths.Up == 1 })
	await.Until(d.T, "the agent's path", func() bool { return d.Links.Stats().Paths.Up == 1 })
}

// onPath reports whether all datagrams during f travelled in sealed packets.
func onPath(d *linktest.DataPlane, f func()) bool {
	before := d.Server.Stats()
	f()
	after := d.Server.Stats()
	return after.Paths.SentDatagrams > before.Paths.SentDatagrams && after.Paths.ReceivedDatagrams > before.Paths.ReceivedDatagrams &&
		after.OnDataConnections == before.OnDataConnections
}

// pathTest is a player at a game, whose datagrams travel in sealed packets through a
// NAT, and an agent whose TCP connections pass a proxy that can break.
type pathTest struct {
	*linktest.DataPlane
	nat    *testNAT
	proxy  *breakableProxy
	port   int
	player *net.UDPConn
}

// newPathTest returns one in which the first datagram has been answered. The game
// answers with the source port that it sees.
func newPathTest(t *testing.T, before func(*testNAT)) *pathTest {
	t.Helper()
	p := &pathTest{nat: newTestNAT(t)}
	if before != nil {
		before(p.nat)
	}
	p.DataPlane = linktest.New(t, linktest.Options{
		Server: func(o *relay.Options) { o.AdvertisedPort = p.nat.port() },
		// What is dialled while the proxy is cut gets no answer.
		Links: func(o *link.Options) { o.Limits.DialTimeout = time.Second },
	})
	p.nat.serve(p.Server.Address)
	p.proxy = newBreakableProxy(t, p.Server.Address)
	p.Servers[0].Address = p.proxy.address
	p.port = p.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		return fmt.Appendf(payload, " from %d", from.Port())
	}), nil)
	p.player = linktest.DialUDP(t, "127.0.0.1", p.port)
	linktest.Ask(t, p.player, []byte("hello"))
	return p
}

// asks sends a datagram again until it is answered, and returns the answer. Late answers
// to other datagrams do not count.
func (p *pathTest) asks(text string) string {
	p.T.Helper()
	for deadline := time.Now().Add(2 * relaytest.Patience); ; {
		if _, err := p.player.Write([]byte(text)); err != nil {
			p.T.Fatal(err)
		}
		_ = p.player.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		b := make([]byte, 1000)
		n, err := p.player.Read(b)
		if err == nil && strings.HasPrefix(string(b[:n]), text) {
			return string(b[:n])
		}
		if time.Now().After(deadline) {
			p.T.Fatalf("%q is not answered: %+v", text, p.Server.Stats())
		}
	}
}

func TestPath_DatagramsTravelInPacketsUnlessTheyExceedTwo(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	if !onPath(p.DataPlane, func() { linktest.Ask(t, p.player, []byte("x")) }) {
		t.Error("a datagram took the data connection")
	}
	// Longer packets are used once they have proved to arrive.
	await.Until(t, "the longest packets", func() bool {
		before := p.Server.Stats().Paths.Received
		linktest.Ask(t, p.player, make([]byte, 1350))
		return p.Server.Stats().Paths.Received > before
	})
	// Whatever the player's network carries in a packet is split at most.
	for _, size := range []int{1400, 1414, 1415, 1472, 2300} {
		if !onPath(p.DataPlane, func() {
			if got := linktest.Ask(t, p.player, make([]byte, size)); len(got) < size {
				t.Errorf("%d bytes come back as %d", size, len(got))
			}
		}) {
			t.Errorf("a datagram of %d bytes took the data connection", size)
		}
	}
	before := p.Server.Stats().OnDataConnections
	payload := make([]byte, 3000)
	if got := linktest.Ask(t, p.player, payload); len(got) < len(payload) {
		t.Errorf("%d bytes come back as %d", len(payload), len(got))
	}
	s := p.Server.Stats()
	if got := s.OnDataConnections; got.FromPlayers != before.FromPlayers+1 || got.ToPlayers != before.ToPlayers+1 {
		t.Errorf("%+v datagrams took the data connection after %+v, want one more", got, before)
	}
	if s.Handshakes != 1 || s.Flows != 1 || s.DroppedDatagrams != 0 || s.Paths.Forged+s.Paths.Replayed+s.Paths.Unknown != 0 {
		t.Errorf("%+v", s)
	}
}

func TestPath_NewAddressOfTheAgentEndsNothing(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	before := string(linktest.Ask(t, p.player, []byte("x")))
	for moves := uint64(1); moves <= 3; moves++ {
		p.nat.rebind()
		if after := p.asks("x"); after != before {
			t.Errorf("the game sees %q in place of %q", after, before)
		}
		p.Server.AwaitStats(t, "the move", func(s relay.Stats) bool { return s.Paths.Moved == moves })
	}
	if s := p.Server.Stats(); s.FlowsOpened != 1 || s.Handshakes != 1 || s.Links != 1 || s.Paths.Up != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPath_FlowsOutliveTheirDataConnectionAndLink(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	before := p.asks("x")
	p.proxy.cut.Store(true) // Existing connections stay lost.
	p.nat.rebind()
	if after := p.asks("x"); after != before {
		t.Errorf("with TCP gone the game sees %q in place of %q", after, before)
	}
	p.proxy.sever()
	p.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 })
	if after := p.asks("x"); after != before {
		t.Errorf("with no link the game sees %q in place of %q", after, before)
	}
	second := linktest.DialUDP(t, "127.0.0.1", p.port)
	linktest.Ask(t, second, []byte("with no link"))
	p.proxy.cut.Store(false)
	p.Server.AwaitStats(t, "the next link and data connection", func(s relay.Stats) bool { return s.Links == 1 && s.DataConnections == 1 })
	if after := p.asks("x"); after != before {
		t.Errorf("after all the game sees %q in place of %q", after, before)
	}
	// The session's data connection carries datagrams again.
	p.nat.cut.Store(true)
	if after := p.asks("y"); after[1:] != before[1:] {
		t.Errorf("with UDP gone the game sees %q in place of %q", after, before)
	}
	if s := p.Server.Stats(); s.FlowsOpened != 2 || s.Flows != 2 {
		t.Errorf("%+v", s)
	}
}

func TestPath_FlowsOutliveTheirDataConnectionWithoutPackets(t *testing.T) {
	p := newPathTest(t, func(n *testNAT) { n.cut.Store(true) })
	before := p.asks("x")
	p.proxy.sever()
	p.Server.AwaitStats(t, "the next link", func(s relay.Stats) bool { return s.Links == 1 && s.DataConnections == 1 && s.Handshakes == 2 })
	if after := p.asks("x"); after != before {
		t.Errorf("the game sees %q in place of %q", after, before)
	}
	if s := p.Server.Stats(); s.FlowsOpened != 1 || s.Paths.Received != 0 {
		t.Errorf("%+v", s)
	}
}

func TestPath_WhereUDPEndsTheDataConnectionTakesOver(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	before := p.asks("x")
	p.nat.cut.Store(true)
	started := time.Now()
	if after := p.asks("y"); after[1:] != before[1:] {
		t.Errorf("the game sees %q in place of %q", after, before)
	}
	if took := time.Since(started); took > wire.PathTimeout+5*time.Second {
		t.Errorf("it took %v", took)
	}
	p.Server.AwaitStats(t, "the path's end", func(s relay.Stats) bool { return s.Paths.Up == 0 })
	p.nat.cut.Store(false)
	await.Until(t, "the path's return", func() bool { return p.asks("z") != "" && p.Server.Stats().Paths.Up == 1 })
	if s := p.Server.Stats(); s.FlowsOpened != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPath_ForgedReplayedAndReflectedPacketsChangeNothing(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	before := string(linktest.Ask(t, p.player, []byte("x")))
	p.nat.damage.Store(true)
	p.nat.twice.Store(true)
	p.nat.reflect.Store(true)
	for range 200 {
		if got := string(linktest.Ask(t, p.player, []byte("x"))); got != before {
			t.Fatalf("%q in place of %q", got, before)
		}
	}
	p.Server.AwaitStats(t, "the count of packets at the tunnel server", func(s relay.Stats) bool {
		return s.Paths.Forged >= 200 && s.Paths.Replayed >= 200
	})
	await.Until(t, "the count of packets at the agent", func() bool {
		s := p.Links.Stats().Paths
		return s.Forged+s.Replayed >= 400
	})
	server, agent := p.Server.Stats().Paths, p.Links.Stats().Paths
	if server.Moved != 0 || server.Up != 1 || agent.Up != 1 {
		t.Errorf("they changed something: %+v, %+v", server, agent)
	}
	if !linktest.Silent(p.player, 20*time.Millisecond) {
		t.Error("a datagram came twice")
	}
	// Garbage gets no answer.
	garbage := linktest.DialUDP(t, "127.0.0.1", int(netip.MustParseAddrPort(p.Server.Address).Port()))
	unknown := server.Unknown
	for _, size := range []int{0, 1, 8, 16, 32, 33, 1200, 9000} {
		_, _ = garbage.Write(make([]byte, size))
		unknown++
	}
	p.Server.AwaitStats(t, "the garbage", func(s relay.Stats) bool { return s.Paths.Unknown == unknown })
	if !linktest.Silent(garbage, 20*time.Millisecond) {
		t.Error("garbage is answered")
	}
}

func TestPath_RestartedAgentGetsNoOldFlows(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	before := strings.TrimPrefix(p.asks("old "), "old ")
	// As if it had been killed: its connections vanish without a close.
	p.proxy.cut.Store(true)
	p.nat.cut.Store(true)
	old := p.Stop
	go func() { _ = old() }()
	p.proxy.sever()
	p.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 })
	if n := p.Server.Stats().Flows; n != 1 {
		t.Errorf("%d flows wait for the agent, want 1", n)
	}
	p.proxy.cut.Store(false)
	p.nat.cut.Store(false)
	p.StartLinks(nil)
	p.Apply()
	p.Server.AwaitStats(t, "the end of the old flow", func(s relay.Stats) bool { return s.Links == 1 && s.Flows == 0 })
	// Another text: answers to repetitions of the first may still be unread.
	if after := strings.TrimPrefix(p.asks("new "), "new "); after == before {
		t.Error("the flow of a dead agent goes on")
	}
	if n := p.Server.Stats().FlowsOpened; n != 2 {
		t.Errorf("%d flows were opened, want 2", n)
	}
}

func TestPath_RevokedAgentLosesItsFlowsAtOnce(t *testing.T) {
	p := newPathTest(t, nil)
	awaitPath(p.DataPlane)
	p.proxy.cut.Store(true)
	p.proxy.sever()
	p.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.Flows == 1 })
	p.Panel.RemoveClient(p.Client)
	p.Server.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 && s.Paths.Up == 0 })
}

func TestPath_PortThatIsTakenLeavesTheDataConnection(t *testing.T) {
	var blocker *net.UDPConn
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) {
		var err error
		if blocker, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(o.Listener.Addr().(*net.TCPAddr).AddrPort())); err != nil {
			t.Fatal(err)
		}
	}})
	defer blocker.Close()
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	for range 3 {
		linktest.Ask(t, player, []byte("x"))
	}
	if !linktest.Silent(blocker, time.Millisecond) {
		t.Error("a packet was sent to another program's port")
	}
}
