package publicport

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

const (
	// rateBurst and sourceRateBurst are how many seconds' worth of connections may come
	// at once: see types.AllocationRules.
	rateBurst, sourceRateBurst = 2, 10
	// silenceScan is how many players are examined for one to evict.
	silenceScan = 16
	// unspokenPause is the least time between two searches for a player who has never
	// sent anything, of which the last has found none.
	unspokenPause = 100 * time.Millisecond
	// playerFiles is how many files a TCP player takes: their connection and a data
	// connection.
	playerFiles = 2
)

// tcpPlayer is a TCP player.
type tcpPlayer struct {
	conn   *net.TCPConn
	source netip.Addr
	giveUp context.CancelFunc // Ends the wait for a data connection.
	meter  *meter.Meter       // nil before the player has entered.
	live   *connection        // The same.
	// holds means that a part of what allocations share is the player's to give back. A
	// newcomer takes over the part of the player who was evicted for them.
	holds bool
}

// end ends the player's connection, and with it its stream.
func (p *tcpPlayer) end() {
	p.giveUp()
	tcpstream.Reset(p.conn)
}

// tcpPlayers are the TCP players of a port who are in, and how fast others may follow.
// A player who is evicted is not in any more, while the connection still ends.
type tcpPlayers struct {
	in        sources.Set[*tcpPlayer]
	rate      *rate.Limiter // nil: no limit.
	perSource *sources.Rates
	unspoken  time.Time // When to search for players who have sent nothing again.
}

// tcpAdmission is the admission of a TCP port. Players take of what the allocations of the
// process and of their tunnel client share.
type tcpAdmission struct {
	admission
	tcpPlayers
	allocation int64
	client     uuid.UUID
	files      *openfiles.Budget
	carried    *carried
	clients    Clients
}

func newTCPAdmission(p *Ports, allocation types.ServerAllocation, r *rules) tcpAdmission {
	a := tcpAdmission{
		admission:  admission{limits: p.o.Limits, now: p.o.Now},
		tcpPlayers: tcpPlayers{perSource: sources.NewRates(0, 0)},
		allocation: allocation.ID, client: allocation.ClientID,
		files: p.files, carried: &p.carried, clients: p.o.Clients,
	}
	a.setRules(r)
	return a
}

// setRules changes the rules.
func (a *tcpAdmission) setRules(r *rules) {
	a.rules = r
	a.setRates(r)
}

// capacity returns how many players the tunnel client can carry; 0: it is not known.
func (a *tcpAdmission) capacity() int { return a.clients.Capacity(a.client) }

// setRates makes the rates those of rules. What has been used of them counts on.
func (t *tcpPlayers) setRates(r *rules) {
	n := valueOf(r.ConnectionsPerSecond)
	switch {
	case n == 0:
		t.rate = nil
	case t.rate == nil:
		t.rate = rate.NewLimiter(rate.Limit(n), rateBurst*n)
	default:
		t.rate.SetLimit(rate.Limit(n))
		t.rate.SetBurst(rateBurst * n)
	}
	n = valueOf(r.ConnectionsPerSecondPerSource)
	t.perSource.Set(float64(n), sourceRateBurst*n)
}

// valueOf returns the bound of a rule; 0: there is none.
func valueOf(rule *int) int {
	if rule == nil {
		return 0
	}
	return *rule
}

// maxPlayers returns how many TCP players may be in.
func (a *tcpAdmission) maxPlayers() int {
	if n := valueOf(a.rules.MaxPlayers); n > 0 {
		return min(n, a.limits.Players)
	}
	return a.limits.Players
}

// withinSource reports whether the source of an address may have one more player.
func (a *tcpAdmission) withinSource(from netip.Addr) bool {
	n := valueOf(a.rules.MaxPlayersPerSource)
	return n == 0 || a.in.Within(from, n)
}

// connected decides about a TCP player who has just connected, as far as that takes
// nothing from others. It counts the connection for the rate of its source.
func (a *tcpAdmission) connected(from netip.Addr, now time.Time) Refusal {
	if why := a.permits(from); why != NotRefused {
		return why
	}
	switch {
	case !a.perSource.Allow(from, now):
		return RefusedSourceRate
	case !a.withinSource(from):
		return RefusedSourceLimit
	case a.in.Len() >= a.maxPlayers() && a.in.Weight(from) >= a.in.Most():
		return RefusedLimit // Nobody would give way.
	}
	return NotRefused
}

// turn returns how long a TCP player has to wait, for the rate of the allocation. It
// counts one who has not.
func (a *tcpAdmission) turn(now time.Time) time.Duration {
	if a.rate == nil || a.rate.AllowN(now, 1) {
		return 0
	}
	missing := 1 - a.rate.TokensAt(now)
	return max(time.Microsecond, time.Duration(missing/float64(a.rate.Limit())*float64(time.Second)))
}

// enter admits a TCP player, if need be in place of another one, who is returned.
func (a *tcpAdmission) enter(p *tcpPlayer, now time.Time) (evicted *tcpPlayer, why Refusal) {
	// Again: much may have changed while the player waited.
	if why = a.permits(p.source); why != NotRefused {
		return nil, why
	}
	switch {
	case !a.withinSource(p.source):
		return nil, RefusedSourceLimit
	case a.in.Len() >= a.maxPlayers() || !a.carried.take(a.client, a.allocation, a.capacity()):
		why = RefusedLimit
	case !a.files.Take(a.allocation, playerFiles):
		a.carried.give(a.client, a.allocation)
		why = RefusedFiles
	}
	if why != NotRefused {
		if evicted = a.evictFor(p.source, now); evicted == nil {
			return nil, why
		}
		evicted.holds = false
	}
	p.holds = true
	a.in.Add(p, p.source)
	return evicted, NotRefused
}

// left notes that the connection of a TCP player has ended.
func (a *tcpAdmission) left(p *tcpPlayer) {
	a.in.Remove(p)
	if p.holds {
		a.carried.give(a.client, a.allocation)
		a.files.Give(a.allocation, playerFiles)
	}
}

// evictFor evicts a player for a newcomer from an address, or returns nil: whoever has
// most gives way, if the newcomer's source will have less even so. Each such eviction
// makes the shares more equal, so that no two sources evict each other in turn. Where
// all have the same, those give way who have never sent anything.
func (a *tcpAdmission) evictFor(from netip.Addr, now time.Time) *tcpPlayer {
	t := &a.tcpPlayers
	mine, most := t.in.Weight(from)+1, t.in.Most()
	if mine > most || mine == most && now.Before(t.unspoken) {
		return nil
	}
	p, silence := t.leastActive()
	if p == nil {
		return nil
	}
	if mine == most && (silence.spoken || silence.since < a.limits.UnspokenWait) {
		t.unspoken = now.Add(unspokenPause)
		return nil
	}
	t.in.Remove(p)
	return p
}

// evictSurplus evicts those of all players who are more than the rules permit, and
// returns them.
func (a *tcpAdmission) evictSurplus(all iter.Seq[*tcpPlayer]) (evicted []*tcpPlayer) {
	if a.rules.MaxPlayersPerSource != nil {
		evicted = a.evictOfSources(all)
	}
	for a.in.Len() > a.maxPlayers() {
		p, _ := a.leastActive()
		a.in.Remove(p)
		evicted = append(evicted, p)
	}
	return evicted
}

// evictOfSources evicts those of all players whose source has more than it may.
func (a *tcpAdmission) evictOfSources(all iter.Seq[*tcpPlayer]) (evicted []*tcpPlayer) {
	silences := map[*tcpPlayer]silence{}
	for p := range all {
		if a.in.Remove(p); !a.withinSource(p.source) {
			silences[p] = silenceOf(p.conn)
		}
		a.in.Add(p, p.source)
	}
	leastFirst := slices.SortedFunc(maps.Keys(silences), func(p, q *tcpPlayer) int {
		return silences[p].compare(silences[q])
	})
	for _, p := range leastFirst {
		if a.in.Remove(p); a.withinSource(p.source) {
			a.in.Add(p, p.source)
		} else {
			evicted = append(evicted, p)
		}
	}
	return evicted
}

// leastActive returns a player of the source that has most, or nil: of those who have
// been in for longest the one who has sent nothing, or been silent for longest. Those
// that are examined are examined last the next time.
func (t *tcpPlayers) leastActive() (least *tcpPlayer, longest silence) {
	var first *tcpPlayer
	for range silenceScan {
		p := t.oldestOfBusiest()
		if p == nil || p == first {
			break
		}
		if first == nil {
			first = p
		}
		if s := silenceOf(p.conn); least == nil || s.compare(longest) < 0 {
			least, longest = p, s
		}
		t.in.Remove(p)
		t.in.Add(p, p.source)
	}
	return least, longest
}

func (t *tcpPlayers) oldestOfBusiest() *tcpPlayer {
	for p := range t.in.Busiest() {
		return p
	}
	return nil
}

// silence is what is known of how active a player is.
type silence struct {
	spoken bool          // The player has sent something.
	since  time.Duration // How long nothing has been sent, either way.
}

// compare is negative for a player who gives way before the one of other.
func (s silence) compare(other silence) int {
	if s.spoken != other.spoken {
		if s.spoken {
			return 1
		}
		return -1
	}
	return cmp.Compare(other.since, s.since)
}
