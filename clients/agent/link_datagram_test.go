package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// datagramGame answers every datagram that serve returns something for, from
// the port it came to; 0 is any port.
func datagramGame(t testing.TB, port int, serve func(payload []byte, from netip.AddrPort) []byte) int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answer := serve(b[:n], from); answer != nil {
				_, _ = c.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().(*net.UDPAddr).Port
}

func echoDatagrams(payload []byte, _ netip.AddrPort) []byte { return payload }

// playDatagrams is a player with a socket of its own.
func playDatagrams(t testing.TB, host string, port int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(host), Port: port})
	if err != nil {
		t.Skipf("reach %s: %v", host, err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ask(t testing.TB, c *net.UDPConn, payload []byte) []byte {
	t.Helper()
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}

func answer(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	b, err := nextAnswer(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nextAnswer(c *net.UDPConn) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(relaytest.Patience))
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	return b[:n], err
}

// silent reports whether nothing comes for a while.
func silent(c *net.UDPConn, wait time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 64<<10))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func TestTunnel_DatagramsOfEverySizeComeBackWhole(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	for _, host := range []string{"127.0.0.1", "::1", "127.0.0.2"} {
		player := playDatagrams(t, host, port)
		for _, size := range []int{0, 1, 1200, 9000, wire.MaxDatagram} {
			payload := bytes.Repeat([]byte{byte(size)}, size)
			if got := ask(t, player, payload); !bytes.Equal(got, payload) {
				t.Errorf("%s: %d bytes came back as %d", host, size, len(got))
			}
		}
	}
	if n := d.server.Stats().Flows; n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

func TestTunnel_DatagramsKeepTheirOrder(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	player := playDatagrams(t, "127.0.0.1", port)
	ask(t, player, []byte("hello"))
	d.awaitPath() // Where they begin to take another way, they may overtake each other once.
	payload := make([]byte, 200)
	for sent, received := uint32(0), uint32(0); received < 5000; received++ {
		for ; sent < 5000 && sent < received+64; sent++ {
			binary.BigEndian.PutUint32(payload, sent)
			if _, err := player.Write(payload); err != nil {
				t.Fatal(err)
			}
		}
		if got := binary.BigEndian.Uint32(answer(t, player)); got != received {
			t.Fatalf("datagram %d comes back in place of %d", got, received)
		}
	}
}

func TestTunnel_ManyFlowsAreAllAnswered(t *testing.T) {
	const players = 300
	d := newDataPlane(t, dataPlaneOptions{})
	// The game tells players apart by their source ports.
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		return fmt.Appendf(payload, " from %d", from.Port())
	}), nil)
	var mu sync.Mutex
	sources := map[string]bool{}
	var all sync.WaitGroup
	for i := range players {
		player := playDatagrams(t, "127.0.0.1", port)
		all.Go(func() {
			name := fmt.Sprintf("player %d", i)
			for range 20 {
				got := string(ask(t, player, []byte(name)))
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
	if n := d.server.Stats().Handshakes; n != 1 {
		t.Errorf("%d data connections for %d flows, want 1", n, players)
	}
}

func TestTunnel_SilentFlowEnds(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{server: func(o *relay.Options) { o.Limits.WarmIdle = time.Millisecond }})
	idle := 1
	ports := make(chan uint16, 4)
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		ports <- from.Port()
		return payload
	}), func(a *types.ClientAllocation) { a.Options.UDPIdleSeconds = &idle })
	player := playDatagrams(t, "127.0.0.1", port)
	ask(t, player, []byte("hello"))
	d.server.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 })
	d.server.AwaitStats(t, "the data connection's end", func(s relay.Stats) bool { return s.DataConnections == 0 })
	ask(t, player, []byte("again"))
	if first, second := <-ports, <-ports; first == second {
		t.Error("the second flow has the socket of the first")
	}
}

func TestTunnel_FlowsAreCapped(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{server: func(o *relay.Options) {
		o.Limits.Flows, o.Limits.FlowsPerSource = 5, 3
	}})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), nil)
	// Every player from 127.0.0.1 is from one source. 127.0.0.2 is another one.
	for range 3 {
		ask(t, playDatagrams(t, "127.0.0.1", port), []byte("in"))
	}
	fourth := playDatagrams(t, "127.0.0.1", port)
	_, _ = fourth.Write([]byte("out"))
	d.server.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.DroppedDatagrams == 1 })
	from := func(ip string) *net.UDPConn {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ask(t, from("127.0.0.2"), []byte("in"))
	ask(t, from("127.0.0.3"), []byte("in"))
	_, _ = from("127.0.0.4").Write([]byte("out"))
	d.server.AwaitStats(t, "the second drop", func(s relay.Stats) bool { return s.DroppedDatagrams == 2 && s.Flows == 5 })
}

func TestTunnel_FlowsThatTheGameNeverAnswersGiveWay(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{server: func(o *relay.Options) { o.Limits.Flows = 3 }})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, func(payload []byte, from netip.AddrPort) []byte {
		if string(payload) != "hello" {
			return nil
		}
		return fmt.Appendf(nil, "you are %d", from.Port())
	}), nil)
	// As if each had forged another address.
	flood := func() {
		opened := d.server.Stats().FlowsOpened
		for range 10 {
			_, _ = playDatagrams(t, "127.0.0.1", port).Write([]byte("junk"))
		}
		d.server.AwaitStats(t, "the flood's flows", func(s relay.Stats) bool { return s.FlowsOpened == opened+10 && s.Flows == 3 })
	}
	flood()
	player := playDatagrams(t, "127.0.0.1", port)
	before := ask(t, player, []byte("hello"))
	flood()
	if after := ask(t, player, []byte("hello")); !bytes.Equal(before, after) {
		t.Errorf("a player's flow ended in a flood: %q, then %q", before, after)
	}
	eventually(t, "the end of those that gave way", func() bool { return d.agent.counters.udp.Flows.Load() == 3 })
}

// nameServer is a resolver for which every name is both loopback addresses.
func nameServer(t *testing.T) *net.Resolver {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
			m.Response, m.Additionals = true, nil
			switch q.Type {
			case dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			case dnsmessage.TypeAAAA:
				m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: [16]byte{15: 1}}}}
			}
			if data, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(data, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

func TestTunnel_DatagramsReachAGameOnIPv4ByAName(t *testing.T) {
	playDatagrams(t, "::1", 1) // Skips where there is no IPv6.
	resolver := nameServer(t)
	d := newDataPlane(t, dataPlaneOptions{agent: func(o *linkOptions) {
		o.Allow = func(string) error { return nil }
		o.Resolver = resolver
	}})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, echoDatagrams), func(a *types.ClientAllocation) { a.LocalHost = "game.test" })
	player := playDatagrams(t, "127.0.0.1", port)
	if got := ask(t, player, []byte("hello")); string(got) != "hello" {
		t.Errorf("answered %q", got)
	}
}

func TestTunnel_ClosedLocalPortEndsNoFlow(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	local := relaytest.FreePort(t)
	port := d.publish(types.ProtocolUDP, local, nil)
	player := playDatagrams(t, "127.0.0.1", port)
	for range 30 {
		_, _ = player.Write([]byte("anybody there?"))
		if !silent(player, time.Millisecond) {
			t.Fatal("an answer from a closed port")
		}
	}
	datagramGame(t, local, echoDatagrams)
	for tries := 0; ; tries++ {
		_, _ = player.Write([]byte("now?"))
		if !silent(player, 100*time.Millisecond) {
			break
		}
		if tries == 50 {
			t.Fatal("no answer after the game came up")
		}
	}
	if n := d.server.Stats().Flows; n != 1 {
		t.Errorf("%d flows, want the one", n)
	}
}

func TestTunnel_EveryDatagramIsAnnouncedByProxyProtocol(t *testing.T) {
	v2 := types.ProxyProtocolV2
	d := newDataPlane(t, dataPlaneOptions{})
	port := d.publish(types.ProtocolUDP, datagramGame(t, 0, func(payload []byte, _ netip.AddrPort) []byte {
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
		player := playDatagrams(t, host, port)
		for _, text := range []string{"one", "two"} {
			want := fmt.Sprintf("%s -> %s: %s", player.LocalAddr(), player.RemoteAddr(), text)
			if got := string(ask(t, player, []byte(text))); got != want {
				t.Errorf("the game got %q, want %q", got, want)
			}
		}
	}
	player := playDatagrams(t, "127.0.0.1", port)
	_, _ = player.Write(make([]byte, wire.MaxDatagram)) // No room for the header.
	eventually(t, "the drop", func() bool { return d.agent.drops()["too_long"] == 1 })
}

func TestTunnel_DatagramsFromARefusedHostGoNowhere(t *testing.T) {
	d := newDataPlane(t, dataPlaneOptions{})
	local := datagramGame(t, 0, func([]byte, netip.AddrPort) []byte {
		t.Error("a datagram reached a target that is not the allocation's")
		return nil
	})
	port := d.publish(types.ProtocolUDP, local, nil)
	// The agent's state changes and the tunnel server has not heard of it yet.
	d.mu.Lock()
	d.allocations[0].LocalHost = "192.0.2.1"
	d.mu.Unlock()
	d.apply()
	d.awaitReport(1, types.ReportFailed)
	player := playDatagrams(t, "127.0.0.1", port)
	_, _ = player.Write([]byte("x"))
	d.server.AwaitStats(t, "the flow's data connection", func(s relay.Stats) bool { return s.Handshakes == 1 })
	d.server.AwaitStats(t, "the flow's end", func(s relay.Stats) bool { return s.Flows == 0 })
}
