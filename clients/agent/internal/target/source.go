package target

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Games tell players apart by address: limits, bans and rates count addresses. A game
// on the loopback therefore sees each player at an address of 127.0.0.0/8 that is
// derived from the player's own and of no secret, so that it stays the same across
// connections, protocols and restarts of the agent:
//
//	203.0.113.7       127.0.113.7 is special, so a hash of the address
//	198.51.100.7      127.51.100.7, the last three numbers of the address
//	2001:db8:1:2::7   a hash of 2001:db8:1:2::/64, what one household has
//
// An address that another player has at the time is passed over for the next hash.

// loopback4 is where players of games on the loopback come from.
var loopback4 = netip.MustParsePrefix("127.0.0.0/8")

// noPlayer is no player's address: the system chooses where a probe comes from.
var noPlayer netip.Addr

// special reports whether an address of 127.0.0.0/8 is no player's: 127.0.0.0/16 has
// the machine itself (127.0.0.1, and 127.0.1.1 on Debian) and its resolvers
// (127.0.0.53, 127.0.0.11), 127.127.0.0/16 the clocks of NTP servers, 127.255.0.0/16
// the broadcast address. Numbers that end in 0 or 255 look like those of a network.
func special(source [4]byte) bool {
	switch source[1] {
	case 0, 127, 255:
		return true
	}
	return source[3] == 0 || source[3] == 255
}

// candidate returns the address that a player comes from if the first n candidates
// are other players'.
func candidate(player netip.Addr, n uint32) netip.Addr {
	if player.Is4() && n == 0 {
		source := player.As4()
		source[0] = 127
		if !special(source) {
			return netip.AddrFrom4(source)
		}
	}
	whole := player.As16()
	for round := uint32(0); ; round++ {
		data := binary.BigEndian.AppendUint32(whole[:], n)
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(data, round))
		source := [4]byte{127, sum[0], sum[1], sum[2]}
		if !special(source) {
			return netip.AddrFrom4(source)
		}
	}
}

// onePlayer returns what counts as the address of one player: of IPv6 a /64, since a
// machine changes the rest of its address at will, except on the local link, which
// has one /64 in all.
func onePlayer(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if addr.Is4() || addr.IsLinkLocalUnicast() {
		return addr.WithZone("")
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return netip.Addr{}
	}
	return prefix.Addr()
}

// loopbackSources are the loopback addresses of the players who are there, of all allocations
// together: a game that has several, such as one for each protocol, sees a player at
// one address. It is safe for concurrent use.
type loopbackSources struct {
	mu      sync.Mutex
	players map[netip.Addr]*usedSource // By player.
	taken   map[netip.Addr]bool        // By source.
}

type usedSource struct {
	source netip.Addr
	uses   int
}

func newLoopbackSources() *loopbackSources {
	return &loopbackSources{players: map[netip.Addr]*usedSource{}, taken: map[netip.Addr]bool{}}
}

// take returns the address that a player comes from, which is no other player's until
// release is called, once.
func (s *loopbackSources) take(player netip.Addr) (source netip.Addr, release func()) {
	player = onePlayer(player)
	if !player.IsValid() {
		return netip.Addr{}, func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.players[player]
	if used == nil {
		used = &usedSource{source: candidate(player, 0)}
		for n := uint32(1); s.taken[used.source]; n++ {
			used.source = candidate(player, n)
		}
		s.players[player], s.taken[used.source] = used, true
	}
	used.uses++
	return used.source, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if used.uses--; used.uses == 0 {
			delete(s.players, player)
			delete(s.taken, used.source)
		}
	}
}

// source returns the loopback address that an allocation's player comes from, or the
// zero Addr where the system chooses: the allocation or the agent does not want it,
// the game gets the player's real address in a PROXY header, which many accept from
// 127.0.0.1 alone, or the game cannot be on the loopback of IPv4. Release is called
// once the player has left.
func (d *Dialer) source(a types.ClientAllocation, player netip.Addr) (source netip.Addr, release func()) {
	if d.sources == nil || !wantsPlayerAddresses(a.Options) {
		return netip.Addr{}, func() {}
	}
	if host, err := netip.ParseAddr(a.LocalHost); err == nil && !loopback4.Contains(host.Unmap()) {
		d.shared.Do(func() {
			d.log.Info("this game sees all players at one address: only games at 127.0.0.1 see one for each player; others need the PROXY protocol",
				slog.Int64("allocationId", a.ID), slog.String("target", address(a)))
		})
		return netip.Addr{}, func() {}
	}
	source, release = d.sources.take(player)
	if source.IsValid() {
		d.log.Debug("player's address for the game", slog.Int64("allocationId", a.ID),
			slog.Any("player", player), slog.Any("source", source))
	}
	return source, release
}

// noSource reports once that the system has none of the addresses that players would
// come from.
func (d *Dialer) noSource(reason error) {
	d.unbound.Do(func() {
		d.log.Warn("games see all players at one address: this system has 127.0.0.1 alone on its loopback",
			slog.String("reason", Reason(reason)))
	})
}

func wantsPlayerAddresses(o types.AllocationOptions) bool {
	if o.PlayerAddresses != nil && !*o.PlayerAddresses {
		return false
	}
	return o.ProxyProtocol == nil || *o.ProxyProtocol == types.ProxyProtocolNone
}

// dialKey is the key of what a dial is for in its context.
type dialKey struct{}

// dialled is what a dial is for.
type dialled struct {
	allocation types.ClientAllocation
	source     netip.Addr
}

func withSource(ctx context.Context, a types.ClientAllocation, source netip.Addr) context.Context {
	return context.WithValue(ctx, dialKey{}, dialled{a, source})
}

// sourceOf returns the source of a dial, or the zero Addr.
func sourceOf(ctx context.Context) netip.Addr {
	d, _ := ctx.Value(dialKey{}).(dialled)
	return d.source
}

// allocationOf returns the allocation of a dial.
func allocationOf(ctx context.Context) types.ClientAllocation {
	d, _ := ctx.Value(dialKey{}).(dialled)
	return d.allocation
}
