package publicport

import (
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/internal/sources"
)

// Limits bound what players can make a public port hold. The zero value of each
// means its default.
type Limits struct {
	// Players is how many TCP connections one allocation may have, if its rules do not
	// say less. For a further one the source that has most gives way, if that has more
	// than the newcomer's would. Default 10,000.
	Players int
	// UnspokenWait is how long a TCP player who has sent nothing is left alone. After it,
	// one gives way to a newcomer even if no source has more than the newcomer's would.
	// Default 10 s.
	UnspokenWait time.Duration
	// Flows is how many UDP flows one allocation may have. Source addresses of UDP
	// cost an attacker nothing: beyond the limit a flow that the game has never
	// answered is evicted for the next. Default 16,384.
	Flows int
	// FlowsPerSource is how many of those may come from one address, or from one
	// /64 of IPv6. Default 8192.
	FlowsPerSource int
	// Files is how many files this process may have open; players of one allocation may
	// take half of those that the process and other allocations leave it. Default: what
	// the system says.
	Files int
	// Unanswered is how many players of one allocation may come from the addresses of
	// linked tunnel clients without an answer of the game, for each of TCP and UDP: in a
	// tunnel that leads to itself each such player causes the next, and none is ever
	// answered. Each that is answered admits one more, up to eight times as many. Further
	// players wait UnansweredWait for one of them to be answered or to leave. Defaults 8
	// and 5 s.
	Unanswered     int
	UnansweredWait time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	setDefault(&l.Players, 10_000)
	setDefault(&l.Flows, 16_384)
	setDefault(&l.FlowsPerSource, 8192)
	setDefault(&l.Files, openfiles.Limit())
	setDefault(&l.Unanswered, 8)
	if l.UnansweredWait == 0 {
		l.UnansweredWait = 5 * time.Second
	}
	if l.UnspokenWait == 0 {
		l.UnspokenWait = 10 * time.Second
	}
	return l
}

// answeringFactor is how many times Limits.Unanswered players may be unanswered where
// the game is known to answer.
const answeringFactor = 8

const (
	// evictionScanLimit is how many flows are examined for one to evict.
	evictionScanLimit = 16
	// evictionsPerTick bounds the flows of a port that are evicted in a tick: each
	// flow that takes their place is work for the agent and a packet on a home's
	// line, which a flood must not fill.
	evictionsPerTick = 1024
)

// admission decides who may enter one public port. Every decision about a player
// that depends on the port alone is made here. It is guarded by the lock of its
// port.
type admission struct {
	limits     Limits
	allocation int64
	client     uuid.UUID
	shared     *openfiles.Budget
	carried    *carried
	clients    Clients
	rules      *rules
	draining   bool // No new players.

	tcp tcpPlayers

	flows   int                // UDP flows,
	sources map[netip.Addr]int // and how many of them each source has.
	evicted int                // Flows evicted in this tick.
}

func newAdmission(p *Ports, allocation types.ServerAllocation, r *rules) admission {
	a := admission{
		limits: p.o.Limits, allocation: allocation.ID, client: allocation.ClientID,
		shared: p.files, carried: &p.carried, clients: p.o.Clients,
		tcp: tcpPlayers{perSource: sources.NewRates(0, 0)}, sources: map[netip.Addr]int{},
	}
	a.setRules(r)
	return a
}

// setRules changes the rules.
func (a *admission) setRules(r *rules) {
	a.rules = r
	a.tcp.setRates(r)
}

// capacity returns how many players the tunnel client can carry; 0: it is not known.
func (a *admission) capacity() int { return a.clients.Capacity(a.client) }

// permits reports whether a player of an address may be in at all.
func (a *admission) permits(player netip.Addr) bool { return a.rules.permits(player) }

// newcomer reports whether a UDP player who has no flow may have one at all.
func (a *admission) newcomer(player netip.Addr) Refusal {
	if a.draining {
		return RefusedDraining
	}
	if !a.permits(player) {
		return RefusedDenied
	}
	return NotRefused
}

// flow admits a UDP flow. Where the port is full, evict is asked to remove a flow.
func (a *admission) flow(player netip.Addr, evict func() bool) Refusal {
	source := netaddr.Source(player)
	if a.sources[source] >= a.limits.FlowsPerSource || a.flows >= a.limits.Flows && !a.evict(evict) {
		return RefusedFlowLimit
	}
	a.flows++
	a.sources[source]++
	return NotRefused
}

func (a *admission) evict(evict func() bool) bool {
	if a.evicted >= evictionsPerTick || !evict() {
		return false
	}
	a.evicted++
	return true
}

func (a *admission) flowLeft(player netip.Addr) {
	a.flows--
	source := netaddr.Source(player)
	if a.sources[source]--; a.sources[source] == 0 {
		delete(a.sources, source)
	}
}

func (a *admission) tick() { a.evicted = 0 }
