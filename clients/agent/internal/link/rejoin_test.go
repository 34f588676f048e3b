package link_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/relay"
)

// soon is less than any of the times after which a data connection is given up.
const soon = 3500 * time.Millisecond

// lossy is a DataPlane whose line passes the link, and of the data connections that
// follow only those after the first ones, whose fate is another.
func lossy(t *testing.T, first int, fate linetest.Fate) *linktest.DataPlane {
	d := linktest.New(t, linktest.Options{})
	d.Servers[0].Address = linetest.Lossy(t, d.Server.Address, func(connection int) linetest.Fate {
		if connection > 1 && connection <= 1+first {
			return fate
		}
		return linetest.Passed
	})
	return d
}

func TestTunnel_APlayerDoesNotWaitForADataConnectionThatHangs(t *testing.T) {
	// A player makes the tunnel server ask for one data connection, and for two that the
	// next players find ready.
	const asked = 3
	t.Run("TCP", func(t *testing.T) {
		t.Parallel()
		d := lossy(t, asked, linetest.Lost)
		port := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
		began := time.Now()
		d.Greet(port)
		if took := time.Since(began); took > soon {
			t.Errorf("it took %v", took)
		}
	})
	for name, fate := range map[string]linetest.Fate{"UDP": linetest.Lost, "UDP, the answer is lost": linetest.AnswerLost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := lossy(t, 1, fate)
			port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
			answeredSoon(t, linktest.DialUDP(t, "127.0.0.1", port))
		})
	}
}

// answeredSoon sends datagrams until one is answered.
func answeredSoon(t *testing.T, player *net.UDPConn) {
	t.Helper()
	began := time.Now()
	for linktest.Write(t, player, "hello"); linktest.Silent(player, 100*time.Millisecond); linktest.Write(t, player, "hello") {
		if took := time.Since(began); took > soon {
			t.Fatalf("no answer after %v", took)
		}
	}
}

func TestLink_ReturnsWhileTheDialOfADataConnectionHangs(t *testing.T) {
	for name, fate := range map[string]linetest.Fate{"nothing passes": linetest.Lost, "the answer is lost": linetest.AnswerLost} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := linktest.New(t, linktest.Options{})
			hangs := make(chan struct{})
			d.Servers[0].Address = linetest.Lossy(t, d.Server.Address, func(connection int) linetest.Fate {
				if connection == 2 {
					defer close(hangs)
					return fate
				}
				return linetest.Passed
			})
			port := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
			player := linktest.DialUDP(t, "127.0.0.1", port)
			linktest.Write(t, player, "hello")
			<-hangs
			if fate == linetest.AnswerLost {
				d.Server.AwaitStats(t, "the data connection", func(s relay.Stats) bool { return s.DataConnections == 1 })
			}
			d.Panel.PutClient(d.Client, 2) // It ends the link.
			d.Mu.Lock()
			d.Servers[0].Ticket = d.Panel.Ticket(d.Client, 2, nil)
			d.Mu.Unlock()
			d.Apply()
			answeredSoon(t, player)
		})
	}
}

func TestLink_IsDialledAgainWithinASecondAndAHalf(t *testing.T) {
	log := new(testlog.Buffer)
	d := linktest.New(t, linktest.Options{Links: func(o *link.Options) {
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Backoff = backoff.Exponential{Min: 700 * time.Millisecond, Rand: func() float64 { return 1 }}
	}})
	d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", linktest.Echo), nil)
	if err := d.Server.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []string{"700ms", "1.4s", "1.5s"} {
		await.Until(t, "a wait of "+wait, func() bool { return log.Count("retry="+wait) > 0 })
	}
}
