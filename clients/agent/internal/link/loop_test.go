package link_test

import (
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
)

// logged is a log that a test reads while it is written.
type logged struct{ testlog.Buffer }

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// options are those of a data plane that logs.
func (l *logged) options(limits relay.PortLimits) linktest.Options {
	return linktest.Options{
		Server: func(o *relay.Options) { o.Logger, o.Limits.PortLimits = l.logger(), limits },
		Links: func(o *link.Options) {
			o.Targets = target.NewDialer(target.Options{Allow: linktest.AllowLoopback, Logger: l.logger()})
		},
	}
}

// lead changes the local target of a data plane's n-th allocation.
func lead(d *linktest.DataPlane, n, port int) {
	d.Mu.Lock()
	d.Allocations[n].LocalPort = port
	d.Mu.Unlock()
	d.Apply()
}

const (
	agentsLine  = "leads back to the allocation's public port: its players are refused"
	serversLine = "players from a tunnel client's own address are refused"
)

func TestLoop_OfOneAgentIsCutAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		protocol types.Protocol
		host     string
		ports    int
	}{
		"TCP":                      {types.ProtocolTCP, "127.0.0.1", 1},
		"TCP by a name":            {types.ProtocolTCP, "localhost", 1},
		"TCP by two allocations":   {types.ProtocolTCP, "127.0.0.1", 2},
		"UDP":                      {types.ProtocolUDP, "127.0.0.1", 1},
		"UDP by a name":            {types.ProtocolUDP, "localhost", 1},
		"UDP by three allocations": {types.ProtocolUDP, "127.0.0.1", 3},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			d := linktest.New(t, log.options(relay.PortLimits{}))
			var ports []int
			for range c.ports {
				ports = append(ports, d.Publish(c.protocol, 1, func(a *types.ClientAllocation) { a.LocalHost = c.host }))
			}
			for n := range ports {
				lead(d, n, ports[(n+1)%len(ports)])
			}
			game := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
			for range 3 {
				if c.protocol == types.ProtocolTCP {
					if linktest.Refusal(t, ports[0]) == nil {
						t.Error("the player sees a game that hangs up")
					}
				} else {
					_, _ = linktest.DialUDP(t, "127.0.0.1", ports[0]).Write([]byte("x"))
				}
				d.Greet(game)
			}
			await.Until(t, "the loop is logged", func() bool { return log.Count(agentsLine) > 0 })
			if n := log.Count(agentsLine); n != 1 {
				t.Errorf("%d log lines about it", n)
			}
			for n := range ports {
				if r := d.AwaitTarget(int64(n+1), types.TargetDown); !strings.Contains(*r.TargetReason, "leads back") {
					t.Errorf("the reason is %q", *r.TargetReason)
				}
			}
			// Each of three players comes back once for each allocation, or twice where the
			// agent has not noted a socket yet.
			limit := uint64(3 * (2*c.ports + 1))
			if s := d.Server.Stats(); s.PlayersJoined > limit+3 || s.FlowsOpened > limit {
				t.Errorf("%d connections and %d flows came about", s.PlayersJoined, s.FlowsOpened)
			}
			lead(d, 0, 1) // There is nothing.
			await.Until(t, "another reason, since it leads elsewhere", func() bool {
				return !strings.Contains(*d.AwaitTarget(1, types.TargetDown).TargetReason, "leads back")
			})
		})
	}
}

func TestLoop_ToAKnownAddressIsReportedAndNotDialled(t *testing.T) {
	for name, c := range map[string]struct {
		protocol     types.Protocol
		public, host string
	}{
		"TCP":           {types.ProtocolTCP, "192.0.2.1", "192.0.2.1"},
		"UDP over IPv6": {types.ProtocolUDP, "2001:db8::1", "2001:DB8:0::1"},
		"TCP by a name": {types.ProtocolTCP, "play.example.test", "Play.Example.test."},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			o := log.options(relay.PortLimits{})
			o.Links = func(o *link.Options) {
				o.Targets = target.NewDialer(target.Options{Allow: func(string, int) error { return nil }, Logger: log.logger()})
			}
			d := linktest.New(t, o)
			port := d.Publish(c.protocol, 1, nil)
			d.Mu.Lock()
			d.Allocations[0].PublicAddress = net.JoinHostPort(c.public, "25565")
			d.Allocations[0].LocalHost, d.Allocations[0].LocalPort = c.host, 25565
			d.Mu.Unlock()
			d.Apply()
			if r := d.AwaitReport(1, types.ReportFailed); !strings.Contains(*r.Reason, "leads back") {
				t.Errorf("the reason is %q", *r.Reason)
			}
			for range 3 {
				if c.protocol == types.ProtocolTCP {
					_ = linktest.Refusal(t, port)
				} else {
					_, _ = linktest.DialUDP(t, "127.0.0.1", port).Write([]byte("x"))
				}
			}
			await.Until(t, "the loop is logged", func() bool { return log.Count(agentsLine) > 0 })
			if n := log.Count(agentsLine); n != 1 {
				t.Errorf("%d log lines about it", n)
			}
			lead(d, 0, 1) // There is nothing.
			d.AwaitReport(1, types.ReportReady)
		})
	}
}

func TestLoop_AChainThatEndsAtAGameIsNone(t *testing.T) {
	d := linktest.New(t, linktest.Options{})
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	for range 3 {
		port = d.Publish(types.ProtocolTCP, port, nil)
	}
	d.Greet(port)
}

// crosswise makes two agents' allocations lead to each other, and returns the port of
// the first one, and ports of games of both.
func crosswise(t *testing.T, log *logged, protocol types.Protocol, limits relay.PortLimits) (d *linktest.DataPlane, port int, games [2]int) {
	d = linktest.New(t, log.options(limits))
	o := log.options(limits)
	other := d.Another(o)
	port = d.Publish(protocol, 1, nil)
	lead(d, 0, other.Publish(protocol, port, nil))
	for i, plane := range []*linktest.DataPlane{d, other} {
		games[i] = plane.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	}
	return d, port, games
}

func TestLoop_OfTwoAgentsIsBoundedAndEnds(t *testing.T) {
	var log logged
	d, port, games := crosswise(t, &log, types.ProtocolTCP, relay.PortLimits{UnansweredWait: 2 * time.Second})
	player := d.Join(port)
	// Eight of each allocation, and one who waits.
	d.Server.AwaitStats(t, "a bounded loop", func(s relay.Stats) bool { return s.Players == 17 })
	for _, game := range games {
		for range 10 {
			_ = d.Greet(game).Close()
		}
	}
	if linktest.ReadToEnd(player) == nil {
		t.Error("the player sees a game that hangs up")
	}
	d.Server.AwaitStats(t, "the end of the loop", func(s relay.Stats) bool { return s.Players == 0 })
	s := d.Server.Stats()
	if s.PlayersJoined > 17+20 || s.PlayersRefused[publicport.RefusedLoop] != 1 {
		t.Errorf("%d joined, %v refused", s.PlayersJoined, s.PlayersRefused)
	}
	if n := log.Count(serversLine); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
}

func TestLoop_OfTwoAgentsOverUDPIsBounded(t *testing.T) {
	var log logged
	d, port, games := crosswise(t, &log, types.ProtocolUDP, relay.PortLimits{UnansweredWait: time.Second})
	player := linktest.DialUDP(t, "127.0.0.1", port)
	await.Until(t, "the loop is logged", func() bool {
		_, _ = player.Write([]byte("x"))
		return log.Count(serversLine) > 0
	})
	for _, game := range games {
		d.Greet(game)
	}
	for range 100 {
		_, _ = player.Write([]byte("x"))
	}
	d.Server.AwaitStats(t, "dropped datagrams", func(s relay.Stats) bool {
		return s.Dropped[string(publicport.RefusedLoop)] > 20
	})
	if s := d.Server.Stats(); s.FlowsOpened > 16 {
		t.Errorf("%d flows came about", s.FlowsOpened)
	}
	if n := log.Count(serversLine); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
}

func TestLoop_PlayersAtTheAgentsAddressAreNotLimited(t *testing.T) {
	const players = 20
	d := linktest.New(t, linktest.Options{})
	tcp := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	udp := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	var joined []net.Conn
	for range players {
		joined = append(joined, d.Join(tcp)) // All of them, before any says something.
	}
	for _, player := range joined {
		linktest.Write(t, player, "x")
	}
	for _, player := range joined {
		linktest.Expect(t, player, "x")
	}
	var flows []*net.UDPConn
	for range players {
		player := linktest.DialUDP(t, "127.0.0.1", udp)
		for _, text := range []string{"1", "2", "3"} {
			linktest.Write(t, player, text)
		}
		flows = append(flows, player)
	}
	for _, player := range flows {
		for _, want := range []string{"1", "2", "3"} {
			if got := linktest.Answer(t, player); string(got) != want {
				t.Errorf("the game got %q, want %q", got, want)
			}
		}
	}
	if s := d.Server.Stats(); s.Players != players || s.Flows != players {
		t.Errorf("%d of %d players and %d of %d flows are there", s.Players, players, s.Flows, players)
	}
}

// unanswered are the options of a data plane whose ports admit one unanswered player.
func unanswered(wait time.Duration) linktest.Options {
	return linktest.Options{Server: func(o *relay.Options) {
		o.Limits.PortLimits = relay.PortLimits{Unanswered: 1, UnansweredWait: wait}
	}}
}

func TestLoop_AnswersAdmitEightTimesAsManyPlayersAtMost(t *testing.T) {
	d := linktest.New(t, unanswered(time.Second))
	var arrived atomic.Int64
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		arrived.Add(1)
		linktest.Echo(c)
	}), nil)
	for range 8 {
		d.Greet(port)
	}
	var silent []net.Conn
	for range 8 {
		silent = append(silent, d.Join(port))
	}
	await.Until(t, "arrival of eight silent players", func() bool { return arrived.Load() == 16 })
	for _, player := range silent[:4] {
		linktest.Write(t, player, "x")
		linktest.Expect(t, player, "x")
	}
	for range 5 {
		d.Join(port)
	}
	d.Server.AwaitStats(t, "the ninth silent player's refusal", func(s relay.Stats) bool {
		return s.PlayersRefused[publicport.RefusedLoop] == 1
	})
	await.Until(t, "arrival of the others", func() bool { return arrived.Load() == 20 })
}

func TestLoop_PlayersWaitAsLongAsTheGameAnswersOthers(t *testing.T) {
	const players, answersEvery, wait = 16, 200 * time.Millisecond, time.Second
	d := linktest.New(t, unanswered(wait))
	turn := time.NewTicker(answersEvery)
	defer turn.Stop()
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		<-turn.C // A busy machine: the last players are answered after more than wait.
		linktest.Echo(c)
	}), nil)
	began := time.Now()
	var joined []net.Conn
	for range players {
		player := d.Join(port)
		linktest.Write(t, player, "x")
		joined = append(joined, player)
	}
	for _, player := range joined {
		linktest.Expect(t, player, "x")
	}
	if took := time.Since(began); took < wait {
		t.Errorf("it took %v only", took)
	}
}

func TestLoop_APlayerWhoWaitsAtAClosingPortIsNone(t *testing.T) {
	d := linktest.New(t, unanswered(time.Minute))
	port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	for range 2 {
		d.Join(port)
	}
	d.Server.AwaitStats(t, "arrival of both players", func(s relay.Stats) bool { return s.Players == 2 })
	d.Panel.Remove(1)
	d.Server.AwaitStats(t, "the port's end", func(s relay.Stats) bool { return s.Players == 0 })
	if s := d.Server.Stats(); s.PlayersRefused[publicport.RefusedLoop] != 0 || s.PlayersRefused[publicport.RefusedNoDataConnection] == 0 {
		t.Errorf("refused %v", s.PlayersRefused)
	}
}

func TestFiles_OneAllocationLeavesSomeForOthers(t *testing.T) {
	// Of 64 files players may take 32, and those of one allocation 16: two for each
	// over TCP, one over UDP at the agent.
	for name, c := range map[string]struct{ server, agent int }{
		"of the tunnel server": {64, 0},
		"of the agent":         {0, 64},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			d := linktest.New(t, linktest.Options{
				Server: func(o *relay.Options) { o.Logger, o.Limits.Files = log.logger(), c.server },
				Links: func(o *link.Options) {
					o.Targets = target.NewDialer(target.Options{Allow: linktest.AllowLoopback, Logger: log.logger(), Files: c.agent})
				},
			})
			game := linktest.Game(t, "127.0.0.1", linktest.Echo)
			crowded, other := d.Publish(types.ProtocolTCP, game, nil), d.Publish(types.ProtocolTCP, game, nil)
			for range 8 {
				d.Greet(crowded)
			}
			for range 3 {
				if linktest.Refusal(t, crowded) == nil {
					t.Error("the player sees a game that hangs up")
				}
			}
			d.Greet(other)
			if n := log.Count("its share of the files"); n != 1 {
				t.Errorf("%d log lines about it", n)
			}
		})
	}
	t.Run("of the agent, over UDP", func(t *testing.T) {
		d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
			o.Targets = target.NewDialer(target.Options{Allow: linktest.AllowLoopback, Files: 64})
		}})
		game := linktest.UDPGame(t, 0, linktest.EchoUDP)
		crowded, other := d.Publish(types.ProtocolUDP, game, nil), d.Publish(types.ProtocolUDP, game, nil)
		for range 16 {
			linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", crowded), []byte("x"))
		}
		last := linktest.DialUDP(t, "127.0.0.1", crowded)
		_, _ = last.Write([]byte("x"))
		linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", other), []byte("x"))
		d.Server.AwaitStats(t, "the refused flow's end", func(s relay.Stats) bool { return s.Flows == 17 })
	})
}
