package publicport

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

type noClients struct{ Clients }

func (noClients) Capacity(uuid.UUID) int { return 0 }

func newTestAdmission(t *testing.T, limits Limits, rules types.AllocationRules) *tcpAdmission {
	t.Helper()
	r, err := newRules(&rules)
	if err != nil {
		t.Fatal(err)
	}
	p := &Ports{o: Options{Limits: limits.withDefaults(), Clients: noClients{}, Now: time.Now}, files: openfiles.NewBudget(0, slog.New(slog.DiscardHandler))}
	a := newTCPAdmission(p, types.ServerAllocation{ID: 1}, r)
	return &a
}

func TestAdmission_NetworksOfIPv6CountAsOne(t *testing.T) {
	addr := netip.MustParseAddr
	now := time.Unix(1e9, 0)
	a := newTestAdmission(t, Limits{Players: 64}, types.AllocationRules{})
	join := func(from netip.Addr) (*tcpPlayer, Refusal) {
		if why := a.connected(from, now); why != NotRefused {
			return nil, why
		}
		return a.enter(&tcpPlayer{conn: new(net.TCPConn), source: from}, now)
	}
	for i := range 64 { // Each from a /64 of its own.
		from := addr("2001:db8::1").As16()
		from[7] = byte(i)
		if evicted, why := join(netip.AddrFrom16(from)); why != NotRefused || evicted != nil {
			t.Fatalf("player %d: %v %q", i, evicted, why)
		}
	}
	flood := netip.MustParsePrefix("2001:db8::/48")
	for _, from := range []string{"2001:db8:1::1", "192.0.2.1", "::ffff:192.0.2.2"} {
		evicted, why := join(addr(from))
		if why != NotRefused || evicted == nil || !flood.Contains(evicted.source) {
			t.Errorf("from %s: %v gave way, %q", from, evicted, why)
		}
		a.left(evicted)
	}
	if _, why := join(addr("2001:db8:0:ffff::1")); why != RefusedLimit {
		t.Errorf("one more of the flood: %q", why)
	}
	if n := a.in.Len(); n != 64 {
		t.Errorf("%d players", n)
	}
}

func TestAdmission_BoundsOfSourcesHoldForNetworks(t *testing.T) {
	now := time.Unix(1e9, 0)
	two := 2
	for name, c := range map[string]struct {
		rules types.AllocationRules
		why   Refusal
		want  int
	}{
		"players":     {types.AllocationRules{MaxPlayersPerSource: &two}, RefusedSourceLimit, 8},
		"connections": {types.AllocationRules{ConnectionsPerSecondPerSource: &two}, RefusedSourceRate, 80},
	} {
		t.Run(name, func(t *testing.T) {
			a := newTestAdmission(t, Limits{}, c.rules)
			in := 0
			for i := range 200 {
				from := netip.MustParseAddr("2001:db8::1").As16()
				from[6] = byte(i) // A /56 of its own.
				p := &tcpPlayer{conn: new(net.TCPConn), source: netip.AddrFrom16(from)}
				why := a.connected(p.source, now)
				if why == NotRefused {
					_, why = a.enter(p, now)
				}
				switch why {
				case NotRefused:
					in++
				case c.why:
				default:
					t.Fatalf("refused: %q", why)
				}
			}
			if in != c.want {
				t.Errorf("%d entered, want %d", in, c.want)
			}
		})
	}
}
