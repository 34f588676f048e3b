package target

import (
	"net"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestDialer_LocalhostIsTheLoopbackWhateverTheResolverSays(t *testing.T) {
	for _, host := range []string{"localhost", "LOCALHOST", "localhost.", "game.localhost", "a.GAME.localhost."} {
		for network, listen := range map[string]string{"IPv4": "127.0.0.1:0", "IPv6": "[::1]:0"} {
			t.Run(host+" over "+network, func(t *testing.T) {
				// The resolver names another machine: nothing there is dialled.
				h := newFixture(t, Options{Resolver: linetest.Resolver(t, "192.0.2.1")}, listen, host, types.AllocationOptions{})
				seen, leave := h.join("198.51.100.7")
				defer leave()
				if want := map[string]string{"IPv4": "127.51.100.7", "IPv6": "::1"}[network]; seen != want {
					t.Errorf("the game sees the player at %s, want %s", seen, want)
				}
			})
		}
	}
}

func TestDialer_ProbesLocalhostOnTheLoopback(t *testing.T) {
	for _, host := range []string{"localhost", "game.localhost", "GAME.Localhost."} {
		game, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := types.ClientAllocation{
			ID: 1, ServerID: uuid.New(), Protocol: types.ProtocolTCP,
			LocalHost: host, LocalPort: game.Addr().(*net.TCPAddr).Port,
		}
		d := NewDialer(Options{
			Allow:    func(string, int) error { return nil },
			Resolver: linetest.Resolver(t, "192.0.2.1"),
		})
		d.SetAllocations([]types.ClientAllocation{a})
		d.probe(t.Context(), a) // Finds the addresses out.
		if err := d.probeAddress(t.Context(), a); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		_ = game.Close()
		d.probe(t.Context(), a)
		if state, reason := d.State(1); state != types.TargetDown || !strings.Contains(reason, "nothing listens") {
			t.Errorf("%s: %s %q", host, state, reason)
		}
		if addresses := d.conditions[1].addresses; len(addresses) != 2 || !addresses[0].IsLoopback() || !addresses[1].IsLoopback() {
			t.Errorf("%s is looked for at %v", host, addresses)
		}
		if _, err := d.DialTCP(t.Context(), a.ServerID, wire.Control{Allocation: 1}); err == nil {
			t.Errorf("%s: something is dialled", host)
		}
	}
}
