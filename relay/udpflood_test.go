package relay_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// silent is a game that answers players, and not a flood.
func silent(datagram string) []string {
	if datagram == "flood" {
		return nil
	}
	return []string{datagram}
}

// ofThree are the addresses of a flood from three.
func ofThree(i int) string { return fmt.Sprintf("127.0.1.%d", 1+i%3) }

// forged are the addresses of a flood, each another one.
func forged(i int) string { return fmt.Sprintf("127.9.%d.%d", i/250, 1+i%250) }

func TestServer_FloodsOfDatagramsKeepNoPlayerOut(t *testing.T) {
	for name, c := range map[string]struct {
		limits   relay.PortLimits
		answers  func(string) []string
		n        int
		from     func(int) string
		capacity int // Of the tunnel client; 0: it says none.
	}{
		"18,000 answered ones of three addresses":   {relay.PortLimits{}, echo, 18_000, ofThree, 0},
		"answered ones of three addresses":          {relay.PortLimits{Flows: 300}, echo, 1500, ofThree, 0},
		"unanswered ones of three addresses":        {relay.PortLimits{Flows: 300}, silent, 1500, ofThree, 0},
		"answered ones, each of a forged address":   {relay.PortLimits{Flows: 300}, echo, 3000, forged, 0},
		"unanswered ones, each of a forged address": {relay.PortLimits{Flows: 300}, silent, 3000, forged, 0},

		"answered ones of three addresses, where few flows fit":          {relay.PortLimits{}, echo, 1500, ofThree, 200},
		"unanswered ones of three addresses, where few flows fit":        {relay.PortLimits{}, silent, 1500, ofThree, 200},
		"answered ones, each of a forged address, where few flows fit":   {relay.PortLimits{}, echo, 3000, forged, 200},
		"unanswered ones, each of a forged address, where few flows fit": {relay.PortLimits{}, silent, 3000, forged, 200},
	} {
		t.Run(name, func(t *testing.T) {
			g := startUDPGameWith(t, c.limits, c.answers, c.capacity)
			playing := g.join("127.0.2.1")
			newcomers, turn := 0, 0
			g.flood(c.n, c.from, func() {
				// Nothing of a player's session is lost.
				turn++
				if text := fmt.Sprint("play ", turn); g.ask(playing, text) != text {
					t.Error("another answer")
				}
				if turn%8 != 0 {
					return
				}
				newcomers++
				began, newcomer := time.Now(), g.player(fmt.Sprintf("127.0.3.%d", newcomers))
				// A player speaks again where nothing comes back: within a second.
				if g.refuses(newcomer, "join") && g.refuses(newcomer, "join again") {
					t.Errorf("newcomer %d was refused twice", newcomers)
				}
				t.Logf("newcomer %d joined in %v", newcomers, time.Since(began))
				g.ask(newcomer, "proven")
			})
			before := g.server.Stats().FlowsOpened
			g.ask(playing, "still")
			if s := g.server.Stats(); s.FlowsOpened != before {
				t.Error("the player's flow was evicted")
			}
		})
	}
}

func TestServer_TheSourceWithMostFlowsGivesWay(t *testing.T) {
	g := startUDPGame(t, relay.PortLimits{Flows: 20}, echo)
	var crowd []*net.UDPConn
	for range 18 {
		crowd = append(crowd, g.join("127.0.1.1"))
	}
	for _, player := range crowd[1:] {
		g.ask(player, "play") // The first is the idlest.
	}
	others := []*net.UDPConn{g.join("127.0.2.1"), g.join("127.0.2.2"), g.join("127.0.2.3")}
	opened := g.server.Stats().FlowsOpened
	for _, player := range append(others, crowd[1:]...) {
		g.ask(player, "play")
	}
	if s := g.server.Stats(); s.FlowsOpened != opened || s.Flows != 20 {
		t.Errorf("%d flows, and %d opened again", s.Flows, s.FlowsOpened-opened)
	}
}

func TestServer_SilentFlowsOfAFullPortEndSoon(t *testing.T) {
	g := startUDPGame(t, relay.PortLimits{Flows: 16}, echo)
	player := g.join("127.0.2.1")
	g.flood(15, ofThree, func() {})
	// By default a flow of a port with few ends after a minute of silence.
	g.server.AwaitStats(t, "the end of those that are not proven", func(s relay.Stats) bool { return s.Flows <= 8 })
	opened := g.server.Stats().FlowsOpened
	g.ask(player, "play")
	if n := g.server.Stats().FlowsOpened - opened; n != 0 {
		t.Error("the player's flow ended")
	}
}

const (
	queryAnswers = 8
	queryAnswer  = 1250
)

// serverList is a game that answers queries with 10 kB.
func serverList(datagram string) []string {
	if datagram != "query" {
		return []string{datagram}
	}
	answers := make([]string, queryAnswers)
	for i := range answers {
		answers[i] = strings.Repeat("x", queryAnswer)
	}
	return answers
}

func TestServer_ServerListsGetTheirAnswers(t *testing.T) {
	g := startUDPGame(t, relay.PortLimits{}, serverList)
	for i := range 40 {
		// Five of the same address at once, each from another port.
		browser := g.player(fmt.Sprintf("127.0.1.%d", 1+i/5))
		g.send(browser, "query")
		for range queryAnswers {
			g.answer(browser)
		}
	}
	if n := g.server.Stats().DroppedDatagrams; n != 0 {
		t.Errorf("%d datagrams were dropped", n)
	}
}

// reflect sends queries as if from addresses that never asked, and returns how many
// bytes reach those and how long it took.
func (g *udpGame) reflect(queries int, victim func(i int) string) (bytes int64, took time.Duration) {
	g.t.Helper()
	began, before := time.Now(), g.server.Stats().Dropped["unproven"]
	var received, count atomic.Int64
	var reading sync.WaitGroup
	var victims []*net.UDPConn
	for i := range queries {
		c := g.player(victim(i))
		_ = c.SetReadDeadline(time.Time{})
		victims = append(victims, c)
		reading.Go(func() {
			b := make([]byte, 2048)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				received.Add(int64(n))
				count.Add(1)
			}
		})
		g.send(c, "query")
		g.settle()
	}
	await.Until(g.t, "end of the answers", func() bool {
		return uint64(count.Load())+g.server.Stats().Dropped["unproven"]-before >= uint64(queries*queryAnswers)
	})
	took = time.Since(began)
	for _, c := range victims {
		_ = c.Close()
	}
	reading.Wait()
	return received.Load(), took
}

func TestServer_APortIsNoAmplifier(t *testing.T) {
	limits := relay.PortLimits{UnprovenBytes: 20_000, UnprovenBytesPerSource: 10_000}
	const burst = 80_000 // Of the port; a source's is one datagram.
	for name, c := range map[string]struct {
		victim    func(i int) string
		perSecond float64
		burst     int64
	}{
		"of one address":     {func(int) string { return "127.0.1.1" }, 10_000, wire.MaxDatagram},
		"of many addresses":  {forged, 20_000, burst},
		"of three addresses": {ofThree, 20_000, burst},
	} {
		t.Run(name, func(t *testing.T) {
			g := startUDPGame(t, limits, serverList)
			const queries = 60 // 600 kB.
			sent, took := g.reflect(queries, c.victim)
			allowed := c.burst + int64(took.Seconds()*c.perSecond)
			if c.burst == burst { // The first answer to each is that of somebody who joins.
				allowed += queries * queryAnswer
			}
			if sent > allowed {
				t.Errorf("%d bytes in %v, want at most %d", sent, took, allowed)
			}
			// Players join and play all the same.
			player := g.join("127.0.2.1")
			g.send(player, "query")
			for range queryAnswers {
				g.answer(player)
			}
		})
	}
}

func TestServer_AnAddressWithATCPConnectionIsItsSenders(t *testing.T) {
	limits := relay.PortLimits{UnprovenBytes: 20_000, UnprovenBytesPerSource: 10_000}
	for name, c := range map[string]struct {
		connected string
		bounded   bool
	}{
		"the address itself":    {"127.0.1.1", false},
		"one beside it":         {"127.0.1.2", true},
		"none":                  {"", true},
		"the address and more":  {"127.0.1.1 127.0.1.3 127.0.1.1", false},
		"others, and one of it": {"127.0.1.4 127.0.1.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := startUDPGame(t, limits, serverList)
			for _, address := range strings.Fields(c.connected) {
				if _, err := joinFrom(t, address, g.tcpPort); err != nil {
					t.Fatal(err)
				}
			}
			n := int64(len(strings.Fields(c.connected)))
			g.server.AwaitStats(t, "the players of TCP", func(s relay.Stats) bool { return s.Players == n })
			const queries = 60
			g.reflect(queries, func(int) string { return "127.0.1.1" })
			if dropped := g.server.Stats().Dropped["unproven"]; (dropped > 0) != c.bounded {
				t.Errorf("%d of %d answers are dropped", dropped, queries*queryAnswers)
			}
		})
	}
}

func TestServer_RulesOfUDPChangeWhilePlayersPlay(t *testing.T) {
	number := func(n int) *int { return &n }
	begin := func(t *testing.T) (g *udpGame, playing *net.UDPConn) {
		t.Helper()
		g = startUDPGame(t, relay.PortLimits{}, echo)
		return g, g.join("127.0.2.1")
	}
	t.Run("maxFlowsPerSource", func(t *testing.T) {
		g, playing := begin(t)
		g.setRules(&types.AllocationRules{MaxFlowsPerSource: number(2)})
		g.ask(g.player("127.0.1.1"), "in")
		g.ask(g.player("127.0.1.1"), "in")
		third := g.player("127.0.1.1")
		if !g.refuses(third, "out") {
			t.Error("a third flow of one source")
		}
		g.ask(g.player("127.0.1.2"), "in")
		g.setRules(&types.AllocationRules{MaxFlowsPerSource: number(3)})
		g.ask(third, "in")
		g.ask(playing, "play")
	})
	t.Run("datagramsPerSecondPerSource", func(t *testing.T) {
		g, playing := begin(t)
		g.setRules(&types.AllocationRules{DatagramsPerSecondPerSource: number(10)})
		flooding, began, before := g.player("127.0.1.3"), time.Now(), g.server.Stats().Dropped["rate"]
		const sent = 200
		for range sent {
			g.send(flooding, "flood")
			g.settle()
		}
		allowed := 11 + int(10*time.Since(began).Seconds())
		if n := sent - int(g.server.Stats().Dropped["rate"]-before); n < 10 || n > allowed {
			t.Errorf("%d datagrams passed, want 10 to %d", n, allowed)
		}
		g.ask(playing, "play")
		g.setRules(nil)
		for g.refuses(flooding, "free") {
			t.Error("the rule still holds")
		}
	})
	t.Run("maxPlayers", func(t *testing.T) {
		g, playing := begin(t)
		g.setRules(&types.AllocationRules{MaxPlayers: number(2)})
		second, third := g.join("127.0.3.1"), g.player("127.0.3.2")
		g.ask(third, "a query")
		before := g.server.Stats().Dropped["limit"]
		if !g.refuses(third, "proven") || g.server.Stats().Dropped["limit"] != before+1 {
			t.Error("a third player")
		}
		g.ask(g.player("127.0.3.3"), "another query")
		g.ask(playing, "play")
		g.setRules(&types.AllocationRules{MaxPlayers: number(3)})
		g.ask(third, "proven")
		g.setRules(&types.AllocationRules{MaxPlayers: number(1)})
		for _, player := range []*net.UDPConn{playing, second, third} {
			g.ask(player, "play") // Who is in stays.
		}
	})
	t.Run("maxPlayers of whom one source has most", func(t *testing.T) {
		g, playing := begin(t)
		g.setRules(&types.AllocationRules{MaxPlayers: number(6)})
		for range 5 {
			g.join("127.0.4.1")
		}
		newcomer := g.player("127.0.4.2")
		g.ask(newcomer, "join")
		flows := g.server.Stats().Flows
		g.ask(newcomer, "proven")
		g.server.AwaitStats(t, "the end of a flow of the source with most", func(s relay.Stats) bool { return s.Flows == flows-1 })
		g.ask(playing, "play")
	})
}
