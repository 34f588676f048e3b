package target

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// fixture is a machine with a game that listens on TCP.
type fixture struct {
	t      *testing.T
	server uuid.UUID
	game   net.Listener
	*Dialer
}

func newFixture(t *testing.T, o Options, listen, host string, options types.AllocationOptions) *fixture {
	t.Helper()
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		t.Skip("this system has one address on its loopback")
	}
	game, err := new(net.ListenConfig).Listen(t.Context(), "tcp", listen)
	if err != nil {
		t.Skipf("listen on %s: %v", listen, err)
	}
	t.Cleanup(func() { _ = game.Close() })
	o.Allow = func(string, int) error { return nil }
	h := &fixture{t: t, server: uuid.New(), game: game, Dialer: NewDialer(o)}
	h.SetAllocations([]types.ClientAllocation{{
		ID: 1, ServerID: h.server, Protocol: types.ProtocolTCP, Options: options,
		LocalHost: host, LocalPort: game.Addr().(*net.TCPAddr).Port,
	}})
	return h
}

// join connects a player and returns the address that the game sees.
func (h *fixture) join(player string) (seen string, leave func()) {
	h.t.Helper()
	game, err := h.DialTCP(h.t.Context(), h.server, wire.Control{
		Allocation: 1, Source: netip.MustParseAddrPort(net.JoinHostPort(player, "40000")),
		Destination: netip.MustParseAddrPort("192.0.2.1:25565"),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	_ = h.game.(*net.TCPListener).SetDeadline(time.Now().Add(await.Timeout))
	accepted, err := h.game.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	defer accepted.Close()
	from := accepted.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	return from.String(), func() {
		_ = game.Conn.Close()
		game.Left()
	}
}

func TestDialer_GamesOnTheLoopbackSeeEachPlayerAtAnAddress(t *testing.T) {
	off := false
	v2 := types.ProxyProtocolV2
	own := func(t *testing.T, seen map[string]string) {
		if seen["198.51.100.7"] != "127.51.100.7" {
			t.Errorf("198.51.100.7 is seen at %s", seen["198.51.100.7"])
		}
		used := map[string]string{}
		for player, at := range seen {
			if other, ok := used[at]; ok {
				t.Errorf("%s and %s are both seen at %s", player, other, at)
			}
			used[at] = player
			ip := netip.MustParseAddr(at)
			if !loopback4.Contains(ip) || special(ip.As4()) {
				t.Errorf("%s is seen at %s", player, at)
			}
		}
	}
	one := func(want string) func(*testing.T, map[string]string) {
		return func(t *testing.T, seen map[string]string) {
			for player, at := range seen {
				if at != want {
					t.Errorf("%s is seen at %s, want %s", player, at, want)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		listen, host string
		agent        Options
		options      types.AllocationOptions
		check        func(*testing.T, map[string]string)
	}{
		"127.0.0.1":                 {"127.0.0.1:0", "127.0.0.1", Options{}, types.AllocationOptions{}, own},
		"mapped to IPv6":            {"127.0.0.1:0", "::ffff:127.0.0.1", Options{}, types.AllocationOptions{}, own},
		"another of 127.0.0.0/8":    {"127.9.9.9:0", "127.9.9.9", Options{}, types.AllocationOptions{}, own},
		"localhost":                 {"127.0.0.1:0", "localhost", Options{}, types.AllocationOptions{}, own},
		"localhost of both":         {":0", "localhost", Options{}, types.AllocationOptions{}, own},
		"localhost of IPv6 alone":   {"[::1]:0", "localhost", Options{}, types.AllocationOptions{}, one("::1")},
		"::1, which is one address": {"[::1]:0", "::1", Options{}, types.AllocationOptions{}, one("::1")},
		"off for the allocation":    {"127.0.0.1:0", "127.0.0.1", Options{}, types.AllocationOptions{PlayerAddresses: &off}, one("127.0.0.1")},
		"off at the agent":          {"127.0.0.1:0", "127.0.0.1", Options{OneAddress: true}, types.AllocationOptions{}, one("127.0.0.1")},
		"in a PROXY header":         {"127.0.0.1:0", "127.0.0.1", Options{}, types.AllocationOptions{ProxyProtocol: &v2}, one("127.0.0.1")},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "localhost of IPv6 alone" {
				if addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip6", "localhost"); err != nil {
					t.Skipf("localhost is %v (%v)", addrs, err)
				}
			}
			h := newFixture(t, c.agent, c.listen, c.host, c.options)
			seen := map[string]string{}
			for _, player := range []string{
				"198.51.100.7", "198.51.100.8", "203.0.113.7", "192.0.2.255", "10.127.0.1", "100.64.0.0",
				"127.0.0.1", "127.0.0.2", "2001:db8::1", "2001:db8:0:1::1", "fe80::1", "fe80::2",
			} {
				at, leave := h.join(player)
				defer leave()
				seen[player] = at
			}
			c.check(t, seen)
		})
	}
}

func TestDialer_APlayerKeepsTheAddress(t *testing.T) {
	for _, player := range []string{"198.51.100.7", "203.0.113.7", "2001:db8::1"} {
		t.Run(player, func(t *testing.T) {
			var first string
			for range 2 { // Agents.
				h := newFixture(t, Options{}, "127.0.0.1:0", "127.0.0.1", types.AllocationOptions{})
				for range 3 { // Connections, one after another.
					at, leave := h.join(player)
					leave()
					if first == "" {
						first = at
					}
					if at != first {
						t.Errorf("seen at %s after %s", at, first)
					}
				}
			}
		})
	}
}

func TestDialer_OneAddressOfAHousehold(t *testing.T) {
	h := newFixture(t, Options{}, "127.0.0.1:0", "127.0.0.1", types.AllocationOptions{})
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"one /64":              {"2001:db8:1:2::7", "2001:db8:1:2:ffff::8", true},
		"mapped to IPv6":       {"198.51.100.7", "::ffff:198.51.100.7", true},
		"two /64 of one /56":   {"2001:db8:1:2::7", "2001:db8:1:3::7", false},
		"IPv4 of one network":  {"198.51.100.7", "198.51.100.8", false},
		"on one local network": {"fe80::7", "fe80::8", false},
	} {
		a, leaveA := h.join(c.a)
		b, leaveB := h.join(c.b)
		if (a == b) != c.same {
			t.Errorf("%s: %s is seen at %s, %s at %s", name, c.a, a, c.b, b)
		}
		leaveA()
		leaveB()
	}
}

func TestDialer_PlayersWhoAreThereShareNoAddress(t *testing.T) {
	h := newFixture(t, Options{}, "127.0.0.1:0", "127.0.0.1", types.AllocationOptions{})
	// These have the same last three numbers.
	players := []string{"198.51.100.7", "203.51.100.7", "192.51.100.7"}
	var seen []string
	var leave []func()
	for _, player := range players {
		at, left := h.join(player)
		seen, leave = append(seen, at), append(leave, left)
	}
	if seen[0] != "127.51.100.7" || seen[1] == seen[0] || seen[2] == seen[0] || seen[2] == seen[1] {
		t.Fatalf("%v are seen at %v", players, seen)
	}
	// Who is there keeps the address, with more connections and after fewer.
	for i, player := range players {
		at, left := h.join(player)
		if at != seen[i] {
			t.Errorf("a second connection of %s is seen at %s after %s", player, at, seen[i])
		}
		left()
	}
	// The address of a player who has left is free.
	leave[0]()
	at, left := h.join("100.51.100.7")
	if at != seen[0] {
		t.Errorf("%s is still taken, a newcomer is seen at %s", seen[0], at)
	}
	if again, left := h.join(players[1]); again != seen[1] {
		t.Errorf("%s is seen at %s after %s", players[1], again, seen[1])
	} else {
		left()
	}
	left()
	leave[1]()
	leave[2]()
	if n := len(h.sources.players) + len(h.sources.taken); n != 0 {
		t.Errorf("%d entries remain", n)
	}
}
