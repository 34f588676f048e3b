package link_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestTunnel_DatagramsOfEverySizeComeBackWhole(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	for _, host := range []string{"127.0.0.1", "::1", "127.0.0.2"} {
		player := linktest.DialUDP(t, host, port)
		for _, size := range []int{0, 1, 1200, 9000, wire.MaxDatagram} {
			payload := bytes.Repeat([]byte{byte(size)}, size)
			if got := linktest.Ask(t, player, payload); !bytes.Equal(got, payload) {
				t.Errorf("%s: %d bytes came back as %d", host, size, len(got))
			}
		}
	}
	if n := d.Server.Stats().Flows; n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

func TestTunnel_DatagramsKeepTheirOrder(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	linktest.Ask(t, player, []byte("hello"))
	awaitPath(d) // Datagrams may overtake each other once, when they switch to the path.
	payload := make([]byte, 200)
	for sent, received := uint32(0), uint32(0); received < 5000; received++ {
		for ; sent < 5000 && sent < received+64; sent++ {
			binary.BigEndian.PutUint32(payload, sent)
			if _, err := player.Write(payload); err != nil {
				t.Fatal(err)
			}
		}
		if got := binary.BigEndian.Uint32(linktest.Answer(t, player)); got != received {
			t.Fatalf("datagram %d comes back in place of %d", got, received)
		}
	}
}

func TestTunnel_ManyFlowsAreAllAnswered(t *testing.T) {
	const players = 300
	d := linktest.New(t, linktest.Options{})
	// The game tells players apart by their source ports.
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		return fmt.Appendf(payload, " from %d", from.Port())
	}), nil)
	var mu sync.Mutex
	sources := map[string]bool{}
	var all sync.WaitGroup
	for i := range players {
		player := linktest.DialUDP(t, "127.0.0.1", port)
		all.Go(func() {
			name := fmt.Sprintf("player %d", i)
			for range 20 {
				got := string(linktest.Ask(t, player, []byte(name)))
				if !bytes.HasPrefix([]byte(got), []byte(name+" from ")) {
					t.Errorf("%s is answered %q", name, got)
				}
				mu.Lock()
				sources[got] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(sources) != players {
		t.Errorf("%d sockets at the game for %d players", len(sources), players)
	}
	if n := d.Server.Stats().Handshakes; n != 1 {
		t.Errorf("%d data connections for %d flows, want 1", n, players)
	}
}

func TestTunnel_SilentFlowEnds(t *testing.T) {
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.WarmIdle = time.Millisecond }})
	idle := 1
	ports := make(chan uint16, 4)
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		ports <- from.Port()
		return payload
	}), func(a *types.ClientAllocation) { a.Options.UDPIdleSeconds = &idle })
	player := linktest.DialUDP(t, "127.0.0.1", port)
	linktest.Ask(t, player, []byte("hello"))
	d.Server.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 })
	d.Server.AwaitStats(t, "the data connection's end", func(s relay.Stats) bool { return s.DataConnections == 0 })
	linktest.Ask(t, player, []byte("again"))
	if first, second := <-ports, <-ports; first == second {
		t.Error("the second flow has the socket of the first")
	}
}

func TestTunnel_FlowsAreCapped(t *testing.T) {
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) {
		o.Limits.Flows, o.Limits.FlowsPerSource = 5, 3
	}})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	// Every player from 127.0.0.1 is from one source. 127.0.0.2 is another one.
	for range 3 {
		linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", port), []byte("in"))
	}
	fourth := linktest.DialUDP(t, "127.0.0.1", port)
	_, _ = fourth.Write([]byte("out"))
	d.Server.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.DroppedDatagrams == 1 })
	for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		linktest.Ask(t, c, []byte("in"))
	}
	// The last one takes the place of one of the source that has most.
	d.Server.AwaitStats(t, "five flows", func(s relay.Stats) bool { return s.DroppedDatagrams == 1 && s.Flows == 5 })
}

func TestTunnel_FlowsThatAreNotProvenAreEvicted(t *testing.T) {
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Limits.Flows = 3 }})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		if string(payload) != "hello" {
			return nil
		}
		return fmt.Appendf(nil, "you are %d", from.Port())
	}), nil)
	// As if each had forged another address.
	flood := func() {
		opened := d.Server.Stats().FlowsOpened
		for range 10 {
			_, _ = linktest.DialUDP(t, "127.0.0.1", port).Write([]byte("junk"))
		}
		d.Server.AwaitStats(t, "the flood's flows", func(s relay.Stats) bool { return s.FlowsOpened == opened+10 && s.Flows == 3 })
	}
	flood()
	player := linktest.DialUDP(t, "127.0.0.1", port)
	before := linktest.Ask(t, player, []byte("hello"))
	linktest.Ask(t, player, []byte("hello")) // Proves the flow.
	flood()
	if after := linktest.Ask(t, player, []byte("hello")); !bytes.Equal(before, after) {
		t.Errorf("a player's flow ended in a flood: %q, then %q", before, after)
	}
	await.Until(t, "the end of the evicted flows", func() bool { return d.Links.Stats().Flows == 3 })
}

func TestTunnel_DatagramsReachAGameOnIPv4ByAName(t *testing.T) {
	linktest.DialUDP(t, "::1", 1) // Skips where there is no IPv6.
	targets := target.NewDialer(target.Options{Allow: func(string, int) error { return nil }, Resolver: linetest.Resolver(t, "127.0.0.1", "::1")})
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) { o.Targets = targets }})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), func(a *types.ClientAllocation) { a.LocalHost = "game.test" })
	player := linktest.DialUDP(t, "127.0.0.1", port)
	if got := linktest.Ask(t, player, []byte("hello")); string(got) != "hello" {
		t.Errorf("answered %q", got)
	}
}

func TestTunnel_ClosedLocalPortEndsNoFlow(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	local := relaytest.FreePort(t)
	port := d.Publish(types.ProtocolUDP, local, nil)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	for range 30 {
		_, _ = player.Write([]byte("anybody there?"))
		if !linktest.Silent(player, time.Millisecond) {
			t.Fatal("an answer from a closed port")
		}
	}
	linktest.UDPGame(t, local, linktest.EchoUDP)
	for tries := 0; ; tries++ {
		_, _ = player.Write([]byte("now?"))
		if !linktest.Silent(player, 100*time.Millisecond) {
			break
		}
		if tries == 50 {
			t.Fatal("no answer after the game came up")
		}
	}
	if n := d.Server.Stats().Flows; n != 1 {
		t.Errorf("%d flows, want the one", n)
	}
}

func TestTunnel_EveryDatagramIsAnnouncedByProxyProtocol(t *testing.T) {
	v2 := types.ProxyProtocolV2
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, func(payload []byte, _ netip.AddrPort) []byte {
		r := bufio.NewReader(bytes.NewReader(payload))
		header, err := proxyproto.Read(r)
		if err != nil {
			return []byte(err.Error())
		}
		rest := make([]byte, r.Buffered())
		_, _ = r.Read(rest)
		return fmt.Appendf(nil, "%s -> %s: %s", header.SourceAddr, header.DestinationAddr, rest)
	}), func(a *types.ClientAllocation) { a.Options.ProxyProtocol = &v2 })
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		player := linktest.DialUDP(t, host, port)
		for _, text := range []string{"one", "two"} {
			want := fmt.Sprintf("%s -> %s: %s", player.LocalAddr(), player.RemoteAddr(), text)
			if got := string(linktest.Ask(t, player, []byte(text))); got != want {
				t.Errorf("the game got %q, want %q", got, want)
			}
		}
	}
	player := linktest.DialUDP(t, "127.0.0.1", port)
	_, _ = player.Write(make([]byte, wire.MaxDatagram)) // Leaves no space for the header.
	await.Until(t, "the drop", func() bool { return d.Links.Stats().TooLong == 1 })
}

func TestTunnel_DatagramsFromARefusedHostGoNowhere(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	local := linktest.UDPGame(t, 0, func([]byte, netip.AddrPort) []byte {
		t.Error("a datagram reached a target that is not the allocation's")
		return nil
	})
	port := d.Publish(types.ProtocolUDP, local, nil)
	// The agent's state has changed, and the tunnel server does not know yet.
	d.Mu.Lock()
	d.Allocations[0].LocalHost = "192.0.2.1"
	d.Mu.Unlock()
	d.Apply()
	d.AwaitReport(1, types.ReportFailed)
	player := linktest.DialUDP(t, "127.0.0.1", port)
	_, _ = player.Write([]byte("x"))
	d.Server.AwaitStats(t, "the flow's data connection", func(s relay.Stats) bool { return s.Handshakes == 1 })
	d.Server.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 })
}
