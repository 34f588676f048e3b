package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/udpsock"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// udpGame is a tunnel client with a UDP game that a test answers for. Its flows need no
// sockets, of which a test has fewer than a flood has flows. Its allocation has id 2.
type udpGame struct {
	t        *testing.T
	panel    *relaytest.Panel
	server   *relaytest.Server
	client   uuid.UUID
	port     int
	tcpPort  int // Of another allocation, whose game nobody plays.
	answers  func(datagram string) []string
	sent     uint64 // Of players. Of the test's goroutine.
	received atomic.Uint64
	counters udptunnel.Counters
}

// echo is a game that sends back what it receives.
func echo(datagram string) []string { return []string{datagram} }

// startUDPGame starts a tunnel server and a game, which sends answers to each datagram.
func startUDPGame(t *testing.T, limits relay.PortLimits, answers func(datagram string) []string) *udpGame {
	t.Helper()
	return startUDPGameWith(t, limits, answers, 0)
}

// startUDPGameWith is startUDPGame with a tunnel client that says how many flows it can
// have open, if not 0: the test fails if they are more.
func startUDPGameWith(t *testing.T, limits relay.PortLimits, answers func(datagram string) []string, flows int) *udpGame {
	t.Helper()
	return startUDPGameChanged(t, limits, answers, flows, nil)
}

// startUDPGameChanged is startUDPGameWith whose tunnel server has changed options; nil:
// none are.
func startUDPGameChanged(t *testing.T, limits relay.PortLimits, answers func(datagram string) []string, flows int, change func(*relay.Options)) *udpGame {
	t.Helper()
	g := &udpGame{t: t, port: relaytest.FreePort(t), answers: answers}
	limits.Unanswered = 20_000 // All addresses of the loopback count as the tunnel client's.
	g.panel, g.server, g.client, g.tcpPort = start(t, func(o *relay.Options) {
		o.Limits.PortLimits = limits
		if change != nil {
			change(o)
		}
	})
	g.setRules(nil)
	path := wire.PathLink
	if flows > 0 {
		path += fmt.Sprintf("?%s=%d", wire.FlowsParam, flows)
	}
	l := openLinkAt(t, g.panel, g.server, g.client, 1, path)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		var session *udptunnel.ClientSession
		for {
			_, message, err := l.ws.ReadMessage()
			if err != nil {
				return
			}
			m, err := wire.DecodeLink(message)
			if err != nil || m.Kind != wire.KindDatagram {
				continue
			}
			ws, _, err := l.sessionData(wire.KindDatagram, m.Session)
			if err != nil {
				continue
			}
			if session == nil || session.Name() != m.Session {
				session = udptunnel.NewClientSession(ctx, m.Session, udptunnel.ClientOptions{
					Target: func(*wire.Record) (udptunnel.Target, []byte, error) {
						if n := g.counters.Flows.Load(); flows > 0 && n >= int64(flows) {
							t.Errorf("a flow beside %d others", n)
						}
						return &udpGameFlow{game: g}, nil, nil
					},
					FlowsPerAllocation: 17_408, Counters: &g.counters, Logger: slog.New(slog.DiscardHandler),
				})
				serving.Go(session.Run)
			}
			serving.Go(func() { _ = session.ServeData(ctx, ws, 0) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.ws.Close()
		serving.Wait()
	})
	_ = l.ws.SetReadDeadline(time.Time{})
	return g
}

// setRules changes the rules of the allocation; nil: it has none.
func (g *udpGame) setRules(rules *types.AllocationRules) {
	g.t.Helper()
	a := relaytest.Allocation(2, g.client, types.ProtocolUDP, g.port)
	a.Rules = rules
	g.panel.Put(a)
	g.panel.AwaitReport(2, types.ReportReady)
}

// udpGameFlow is one player of a udpGame.
type udpGameFlow struct {
	game *udpGame
	flow *udptunnel.ClientFlow
}

func (f *udpGameFlow) Start(flow *udptunnel.ClientFlow) { f.flow = flow }

func (f *udpGameFlow) Send(datagrams []udpsock.Datagram) {
	for i := range datagrams {
		for _, answer := range f.game.answers(string(datagrams[i].Data)) {
			f.flow.Queue([]wire.Record{{Kind: wire.RecordDatagram, Flow: f.flow.Number(), Payload: []byte(answer)}})
		}
		f.game.received.Add(1)
	}
	f.flow.Flush()
}

func (f *udpGameFlow) Close() {}

// player returns a player at an address of this machine.
func (g *udpGame) player(address string) *net.UDPConn {
	g.t.Helper()
	c := g.dial(address)
	_ = c.SetReadBuffer(1 << 20)
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

// send sends a player's datagram.
func (g *udpGame) send(player *net.UDPConn, datagram string) {
	g.t.Helper()
	if _, err := player.Write([]byte(datagram)); err != nil {
		g.t.Fatal(err)
	}
	g.sent++
}

// dropped is how many of players' datagrams the tunnel server has dropped.
func (g *udpGame) dropped() uint64 {
	s := g.server.Stats()
	return s.DroppedDatagrams - s.Dropped["unproven"] - s.Dropped["no_flow"]
}

// settle returns once every datagram that was sent has reached the game or was dropped.
func (g *udpGame) settle() {
	g.t.Helper()
	g.server.AwaitStats(g.t, "the arrival of all datagrams", func(relay.Stats) bool { return g.received.Load()+g.dropped() >= g.sent })
}

// flood sends n datagrams, each from another port of the address of its number, and
// calls between now and then. None of them listens for an answer.
func (g *udpGame) flood(n int, address func(i int) string, between func()) {
	g.t.Helper()
	atOnce := min(256, 1+n/24) // What a socket's buffer holds.
	used := make(map[string]bool, n)
	for i := range n {
		c := g.dial(address(i))
		// The system gives a port again that is free again. Its flow may have to give way
		// while it carries a second datagram, which then counts as neither.
		for used[c.LocalAddr().String()] {
			_ = c.Close()
			c = g.dial(address(i))
		}
		used[c.LocalAddr().String()] = true
		g.send(c, "flood")
		_ = c.Close()
		if i%atOnce == atOnce-1 || i == n-1 {
			g.settle()
			between()
		}
	}
}

func (g *udpGame) dial(address string) *net.UDPConn {
	g.t.Helper()
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(address)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: g.port})
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// ask sends a player's datagram, which must be answered.
func (g *udpGame) ask(player *net.UDPConn, datagram string) string {
	g.t.Helper()
	g.send(player, datagram)
	return g.answer(player)
}

// join returns a player who has joined: whose flow is proven.
func (g *udpGame) join(address string) *net.UDPConn {
	g.t.Helper()
	player := g.player(address)
	g.ask(player, "join")
	g.ask(player, "play")
	return player
}

// answer returns the next answer that a player gets.
func (g *udpGame) answer(player *net.UDPConn) string {
	g.t.Helper()
	_ = player.SetReadDeadline(time.Now().Add(relaytest.Patience))
	b := make([]byte, 64<<10)
	n, err := player.Read(b)
	if err != nil {
		g.t.Fatalf("the player at %s is not answered: %v; %+v", player.LocalAddr(), err, g.server.Stats())
	}
	return string(b[:n])
}

// refuses reports whether a player's datagram is dropped. Otherwise it waits for the answer.
func (g *udpGame) refuses(player *net.UDPConn, datagram string) bool {
	g.t.Helper()
	g.settle()
	before := g.dropped()
	g.send(player, datagram)
	g.settle()
	if g.dropped() != before {
		return true
	}
	g.answer(player)
	return false
}
