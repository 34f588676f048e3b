package relay_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// patient lets players wait for a data connection for longer than any test.
func patient(o *relay.Options) {
	o.Limits.JoinWait = time.Hour
	o.Limits.Unanswered = 1000 // They come from the address of their tunnel client.
}

// crowd connects n players from an address, each of whom says something or is silent.
func crowd(t *testing.T, s *relaytest.Server, address string, port, n int, speaks bool) []net.Conn {
	t.Helper()
	players := make([]net.Conn, n)
	for i := range players {
		before := s.Stats()
		c, err := joinFrom(t, address, port)
		if err != nil {
			t.Fatal(err)
		}
		if speaks {
			_, _ = io.WriteString(c, "x")
		}
		s.AwaitStats(t, "the player's arrival", func(s relay.Stats) bool {
			return s.Players > before.Players || refusals(s, publicport.RefusedGaveWay) > refusals(before, publicport.RefusedGaveWay)
		})
		players[i] = c
	}
	return players
}

// stays reports whether a player is connected.
func stays(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// awaitEvicted returns once a player has had to leave.
func awaitEvicted(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(relaytest.Patience))
	wantReset(t, c)
}

func refusals(s relay.Stats, why publicport.Refusal) uint64 { return s.PlayersRefused[why] }

func TestServer_AFullAllocationHasRoomForOtherSources(t *testing.T) {
	const limit = 8
	capacity := 2 * limit
	for name, change := range map[string]func(*relay.Options){
		"of players":           func(o *relay.Options) { o.Limits.Players = limit },
		"of files":             func(o *relay.Options) { o.Limits.Files = 64 },
		"of its tunnel client": func(o *relay.Options) { o.Limits.DataConnections = capacity },
	} {
		t.Run(name, func(t *testing.T) {
			p, s, client, port := start(t, func(o *relay.Options) { patient(o); change(o) })
			openLink(t, p, s, client, 1)
			crowd(t, s, "127.0.0.2", port, limit, true)
			for range limit {
				_, _ = joinFrom(t, "127.0.0.2", port)
			}
			s.AwaitStats(t, "the refusals of the flood", func(s relay.Stats) bool {
				return refusals(s, publicport.RefusedLimit)+refusals(s, publicport.RefusedFiles) == limit
			})
			for _, address := range []string{"127.0.0.3", "127.0.0.4", "127.0.0.5"} {
				c, err := joinFrom(t, address, port)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if !stays(c) {
						t.Errorf("the player from %s had to leave", address)
					}
				}()
			}
			s.AwaitStats(t, "room for three others", func(s relay.Stats) bool {
				return refusals(s, publicport.RefusedGaveWay) == 3 && s.Players == limit
			})
			// Now nobody has more than the flood's source would have again.
			for range 3 {
				_, _ = joinFrom(t, "127.0.0.2", port)
			}
			s.AwaitStats(t, "the flood's further refusals", func(s relay.Stats) bool {
				return refusals(s, publicport.RefusedLimit)+refusals(s, publicport.RefusedFiles) == limit+3
			})
		})
	}
}

func TestServer_SilentPlayersGiveWayFirst(t *testing.T) {
	const wait = time.Millisecond
	p, s, client, port := start(t, func(o *relay.Options) {
		patient(o)
		o.Limits.Players, o.Limits.UnspokenWait = 4, wait
	})
	openLink(t, p, s, client, 1)
	before := crowd(t, s, "127.0.0.2", port, 2, true)
	silent := crowd(t, s, "127.0.0.2", port, 1, false)
	after := crowd(t, s, "127.0.0.2", port, 1, true)
	other := crowd(t, s, "127.0.0.3", port, 1, false)
	awaitEvicted(t, silent[0])
	for _, c := range append(before, after...) {
		if !stays(c) {
			t.Error("a player who has spoken had to leave")
		}
	}
	// One of three gives way to one who is their source's first.
	crowd(t, s, "127.0.0.4", port, 1, true)
	s.AwaitStats(t, "four players", func(s relay.Stats) bool { return s.Players == 4 })
	// Of sources that have one each, the one who has never spoken gives way.
	crowd(t, s, "127.0.0.5", port, 1, true)
	s.AwaitStats(t, "four players", func(s relay.Stats) bool { return s.Players == 4 })
	await.Until(t, "the silent player's turn", func() bool {
		c, err := joinFrom(t, "127.0.0.6", port)
		if err == nil {
			_, _ = io.WriteString(c, "x")
		}
		return !stays(other[0])
	})
	s.AwaitStats(t, "four players", func(s relay.Stats) bool { return s.Players == 4 })
	if last, err := joinFrom(t, "127.0.0.7", port); err == nil { // All have one, and have spoken.
		awaitEvicted(t, last)
	}
}

func TestServer_LowerBoundsReachPlayersWhoAreIn(t *testing.T) {
	p, s, client, port := start(t, patient)
	openLink(t, p, s, client, 1)
	put := func(r types.AllocationRules) {
		p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), r))
		p.AwaitReport(1, types.ReportReady)
	}
	number := func(n int) *int { return &n }
	family := crowd(t, s, "127.0.0.2", port, 2, true)
	silent := crowd(t, s, "127.0.0.3", port, 2, false)
	crowd(t, s, "127.0.0.3", port, 3, true)
	single := crowd(t, s, "127.0.0.4", port, 1, false)

	put(types.AllocationRules{MaxPlayersPerSource: number(3)})
	for _, c := range silent {
		awaitEvicted(t, c)
	}
	s.AwaitStats(t, "three of the busiest", func(s relay.Stats) bool { return s.Players == 6 })
	_, _ = joinFrom(t, "127.0.0.3", port)
	s.AwaitStats(t, "a refusal", func(s relay.Stats) bool { return refusals(s, publicport.RefusedSourceLimit) == 1 })

	put(types.AllocationRules{MaxPlayers: number(5)})
	s.AwaitStats(t, "five players", func(s relay.Stats) bool { return s.Players == 5 && refusals(s, publicport.RefusedGaveWay) == 3 })
	for _, c := range append(family, single...) {
		if !stays(c) {
			t.Error("a player had to leave whose source has fewer than another")
		}
	}
	put(types.AllocationRules{MaxPlayers: number(3)})
	s.AwaitStats(t, "three players", func(s relay.Stats) bool { return s.Players == 3 })
	if !stays(single[0]) {
		t.Error("a player had to leave who is their source's only one")
	}
	put(types.AllocationRules{})
	crowd(t, s, "127.0.0.2", port, 5, true)
}

func TestServer_RatesOfConnections(t *testing.T) {
	one, twenty := 1, 20
	t.Run("of the allocation", func(t *testing.T) {
		p, s, client, port := start(t, patient)
		openLink(t, p, s, client, 1)
		p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), types.AllocationRules{ConnectionsPerSecond: &one}))
		p.AwaitReport(1, types.ReportReady)
		var players []net.Conn
		started := time.Now()
		for range 4 {
			c, err := joinFrom(t, "127.0.0.2", port)
			if err != nil {
				t.Fatal(err)
			}
			players = append(players, c)
		}
		s.AwaitStats(t, "the third player", func(s relay.Stats) bool { return s.Players == 3 })
		if took := time.Since(started); took < 900*time.Millisecond {
			t.Errorf("the third player waited %v", took)
		}
		// Without the rule the next has waited for long enough.
		p.Put(relaytest.Allocation(1, client, types.ProtocolTCP, port))
		s.AwaitStats(t, "the fourth player", func(s relay.Stats) bool { return s.Players == 4 })
		for _, c := range players {
			if !stays(c) {
				t.Error("a player was cut")
			}
		}
	})
	t.Run("of a source", func(t *testing.T) {
		p, s, client, port := start(t, patient)
		openLink(t, p, s, client, 1)
		p.Put(ruled(relaytest.Allocation(1, client, types.ProtocolTCP, port), types.AllocationRules{
			ConnectionsPerSecondPerSource: &one, ConnectionsPerSecond: &twenty,
		}))
		p.AwaitReport(1, types.ReportReady)
		for range 60 {
			_, _ = joinFrom(t, "127.0.0.2", port)
		}
		s.AwaitStats(t, "the refusals", func(s relay.Stats) bool {
			return uint64(s.Players)+refusals(s, publicport.RefusedSourceRate) == 60
		})
		if n := s.Stats().Players; n < 10 || n > 20 {
			t.Errorf("%d players in one burst", n)
		}
		// Those who were refused have taken nothing of the allocation's rate.
		before := s.Stats().Players
		for _, address := range []string{"127.0.0.3", "127.0.0.4", "127.0.0.5"} {
			crowd(t, s, address, port, 2, true)
		}
		if n := s.Stats().Players; n != before+6 {
			t.Errorf("%d players, %d before", n, before)
		}
	})
}

func TestServer_OneAllocationLeavesItsTunnelClientToOthers(t *testing.T) {
	p, s, client, port := start(t, func(o *relay.Options) { patient(o); o.Limits.DataConnections = 16 })
	other := relaytest.FreePort(t)
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, other))
	p.AwaitReport(2, types.ReportReady)
	openLink(t, p, s, client, 1)
	for i := range 30 {
		_, _ = joinFrom(t, "127.0.0."+string(rune('2'+i%5)), port)
	}
	s.AwaitStats(t, "the flooded allocation's refusals", func(s relay.Stats) bool {
		return s.Players == 8 && refusals(s, publicport.RefusedLimit)+refusals(s, publicport.RefusedGaveWay) == 22
	})
	crowd(t, s, "127.0.0.2", other, 4, true)
}

func TestServer_WaitingPlayersOfAllocationsAndSourcesHaveTurns(t *testing.T) {
	const waiting = 8
	p, s, client, port := start(t, func(o *relay.Options) { patient(o); o.Limits.Waiting = waiting })
	other := relaytest.FreePort(t)
	p.Put(relaytest.Allocation(2, client, types.ProtocolTCP, other))
	p.AwaitReport(2, types.ReportReady)
	l := openLink(t, p, s, client, 1)
	crowd(t, s, "127.0.0.2", port, waiting, true)
	for range waiting {
		_, _ = joinFrom(t, "127.0.0.2", port)
	}
	await := func(refused uint64) {
		t.Helper()
		s.AwaitStats(t, "the refusals", func(s relay.Stats) bool {
			return refusals(s, publicport.RefusedWaiting) == refused && s.Players == waiting
		})
	}
	await(waiting)
	late := func(address string, port int, refused uint64) string {
		t.Helper()
		c, err := joinFrom(t, address, port)
		if err != nil {
			t.Fatal(err)
		}
		await(refused)
		return c.LocalAddr().String()
	}
	// One of another allocation, and one of another source, wait although all places
	// were taken; and neither is served last.
	elsewhere := late("127.0.0.2", other, waiting+1)
	neighbour := late("127.0.0.3", port, waiting+2)
	var served []string
	for range 4 {
		ws, _, err := l.data(wire.KindStream)
		if err != nil {
			t.Fatal(err)
		}
		_, text, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		open, err := wire.DecodeControl(text)
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, open.Source.String())
	}
	if !slices.Contains(served[:2], elsewhere) || !slices.Contains(served, neighbour) {
		t.Errorf("served %v, not %s and %s", served, elsewhere, neighbour)
	}
}
