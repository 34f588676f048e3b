package target

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestLoop_KnownByTheAddressesIsRefusedBeforeADial(t *testing.T) {
	tcp, udp := types.ProtocolTCP, types.ProtocolUDP
	home, other := uuid.New(), uuid.New()
	servers := []types.ClientServer{
		{ID: home, Address: "agents.example.test:7443", PublicAddresses: &[]string{"192.0.2.1", "2001:db8::1"}},
		{ID: other, Address: "192.0.2.2:7443"},
	}
	at := func(server uuid.UUID, protocol types.Protocol, public, host string, port int) types.ClientAllocation {
		return types.ClientAllocation{ServerID: server, Protocol: protocol, PublicAddress: public, LocalHost: host, LocalPort: port}
	}
	const play = "play.example.test:25565"
	for name, c := range map[string]struct {
		allocations []types.ClientAllocation // Those that lead back come first.
		loops       int
	}{
		"by the name":             {[]types.ClientAllocation{at(home, tcp, play, "Play.Example.test.", 25565)}, 1},
		"by the number":           {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 25565)}, 1},
		"by the mapped number":    {[]types.ClientAllocation{at(home, tcp, play, "::ffff:192.0.2.1", 25565)}, 1},
		"by IPv6":                 {[]types.ClientAllocation{at(home, tcp, play, "2001:DB8:0::1", 25565)}, 1},
		"by the agents' address":  {[]types.ClientAllocation{at(home, tcp, play, "agents.example.test", 25565)}, 1},
		"by the agents' number":   {[]types.ClientAllocation{at(other, tcp, "b.example.test:1", "192.0.2.2", 1)}, 1},
		"by another name for it":  {[]types.ClientAllocation{at(home, tcp, play, "game.lan", 25565)}, 1},
		"UDP":                     {[]types.ClientAllocation{at(home, udp, play, "192.0.2.1", 25565)}, 1},
		"UDP by another name":     {[]types.ClientAllocation{at(home, udp, play, "game.lan", 25565)}, 1},
		"two on one server":       {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 1), at(home, tcp, "play.example.test:1", "game.lan", 25565)}, 2},
		"crosswise on two":        {[]types.ClientAllocation{at(home, udp, play, "192.0.2.2", 1), at(other, udp, "b.example.test:1", "2001:db8::1", 25565)}, 2},
		"one that leads to those": {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 25565), at(home, tcp, "play.example.test:1", "192.0.2.1", 25565)}, 1},

		"another port":             {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 25566)}, 0},
		"another protocol":         {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 1), at(home, udp, "play.example.test:1", "192.0.2.1", 25565)}, 0},
		"another tunnel server":    {[]types.ClientAllocation{at(other, tcp, "b.example.test:1", "192.0.2.1", 1)}, 0},
		"a chain to a game":        {[]types.ClientAllocation{at(home, tcp, play, "192.0.2.1", 1), at(home, tcp, "play.example.test:1", "192.0.2.9", 25565)}, 0},
		"a public host of its own": {[]types.ClientAllocation{at(home, tcp, "localhost:25565", "localhost", 25565), at(home, udp, "127.0.0.1:1", "127.0.0.1", 1)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log testlog.Buffer
			d := NewDialer(Options{
				Allow: func(string, int) error { return nil }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				Resolver: linetest.Resolver(t, "192.0.2.1"),
			})
			for i := range c.allocations {
				c.allocations[i].ID = int64(i + 1)
			}
			d.SetServers(servers)
			d.SetAllocations(c.allocations)
			if len(c.allocations) > 1 {
				for _, a := range c.allocations {
					d.probe(t.Context(), a) // It resolves names.
				}
			}
			for i, a := range c.allocations {
				loops := i < c.loops
				if !loops {
					if err := d.Check(a); err != nil {
						t.Errorf("allocation %d: %v", a.ID, err)
					}
					continue
				}
				for range 3 {
					var err error
					if a.Protocol == tcp {
						_, err = d.DialTCP(t.Context(), a.ServerID, wire.Control{Allocation: a.ID, Source: netip.MustParseAddrPort("203.0.113.7:1")})
					} else if err = d.Check(a); err == nil {
						_, err = d.connect(t.Context(), a, netip.Addr{})
					}
					if err == nil || !strings.Contains(err.Error(), "leads back") {
						t.Errorf("allocation %d: %v", a.ID, err)
					}
				}
				d.probe(t.Context(), a) // It resolves names.
				if err := d.Check(a); err == nil || !strings.Contains(err.Error(), "leads back") {
					t.Errorf("allocation %d: %v", a.ID, err)
				}
			}
			if n := log.Count("leads back"); n > 1 {
				t.Errorf("%d log lines:\n%s", n, log.String())
			}
			if n := d.counters.dialFailures.Load(); c.loops == 0 && n > 0 {
				t.Errorf("%d dials", n)
			}
		})
	}
}

func TestLoop_EndsWithTheAddressesThatMadeIt(t *testing.T) {
	server := uuid.New()
	a := types.ClientAllocation{
		ID: 1, ServerID: server, Protocol: types.ProtocolTCP, PublicAddress: "play.example.test:25565",
		LocalHost: "192.0.2.1", LocalPort: 25565,
	}
	d := NewDialer(Options{Allow: func(string, int) error { return nil }})
	d.SetAllocations([]types.ClientAllocation{a})
	for _, c := range []struct {
		address string
		loops   bool
	}{{"192.0.2.9", false}, {"192.0.2.1", true}, {"192.0.2.9", false}} {
		d.SetServers([]types.ClientServer{{ID: server, Address: "play.example.test:7443", PublicAddresses: &[]string{c.address}}})
		if c.loops {
			_, _ = d.DialTCP(t.Context(), server, wire.Control{Allocation: 1})
		}
		state, reason := d.State(1)
		if err := d.Check(a); (err != nil) != c.loops || strings.Contains(reason, "leads back") != c.loops {
			t.Errorf("players reach it at %s: %v, target %s %q", c.address, err, state, reason)
		}
	}
}
