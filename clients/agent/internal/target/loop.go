package target

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// An allocation whose local target leads back to its own public port brings each of its
// players back as another one, until a machine has no files left. Where no NAT is in
// between, such a player is known by the address: it is that of the socket that was
// opened for the player before. A chain of allocations that ends at a game is none.
// Longer ways round, through NAT or another agent, are left to the tunnel server, unless
// the addresses show them.

var (
	errLoop  = errors.New("the local target leads back to the allocation's public port: name the host and port at which the game itself listens")
	errFiles = errors.New("the allocation has its share of the files that may be open")
)

// tcpFiles is how many files a TCP player takes: a socket to the game and a data
// connection.
const tcpFiles = 2

// endpoint is the local end of a socket to a target.
type endpoint struct {
	protocol types.Protocol
	address  netip.AddrPort
}

// hop is the player for whom a socket was opened.
type hop struct {
	allocation int64
	player     netip.AddrPort
}

// hops are the open sockets to targets. The zero value is ready to use, from any
// goroutine.
type hops struct {
	mu   sync.Mutex
	open map[endpoint]hop
}

// add adds a socket until remove is called.
func (h *hops) add(a types.ClientAllocation, local, player netip.AddrPort) (remove func()) {
	key := endpoint{a.Protocol, comparable4(local)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[endpoint]hop{}
	}
	added := hop{a.ID, player}
	h.open[key] = added
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open[key] == added { // Another socket may have the port already.
			delete(h.open, key)
		}
	}
}

// has reports whether a local address is that of a socket.
func (h *hops) has(protocol types.Protocol, local netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.open[endpoint{protocol, comparable4(local)}]
	return ok
}

// forget forgets the sockets of an allocation: its players go elsewhere from now on.
func (h *hops) forget(allocation int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.open, func(_ endpoint, opened hop) bool { return opened.allocation == allocation })
}

// loop returns the allocations by which an allocation's player has come through the
// same allocation before; none: the player has not.
func (h *hops) loop(a types.ClientAllocation, player netip.AddrPort) []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var through []int64
	for range len(h.open) {
		before, ok := h.open[endpoint{a.Protocol, comparable4(player)}]
		if !ok {
			return nil
		}
		through = append(through, before.allocation)
		if before.allocation == a.ID {
			return through
		}
		player = before.player
	}
	return nil
}

// comparable4 returns an address in the form that it has at both ends.
func comparable4(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// checkLoop returns an error if an allocation's player has come through the same
// allocation before.
func (d *Dialer) checkLoop(a types.ClientAllocation, player netip.AddrPort) error {
	if loop := d.hops.loop(a, player); loop != nil {
		d.sayLoop(a, loop)
		return errLoop
	}
	return nil
}

// sayLoop logs that an allocation leads back to itself, once for all that the loop goes
// through, until one of them changes.
func (d *Dialer) sayLoop(a types.ClientAllocation, through []int64) {
	d.mu.Lock()
	said := d.looped[a.ID] == address(a)
	for _, id := range through {
		if member, ok := d.allocations[id]; ok {
			d.looped[id] = address(member)
		}
	}
	d.mu.Unlock()
	signal(d.health.changed)
	if !said {
		d.log.Warn("local target leads back to the allocation's public port: its players are refused",
			slog.Int64("allocationId", a.ID), slog.String("target", address(a)))
	}
}
