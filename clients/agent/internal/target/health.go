package target

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// People are to see that a game is missing before a player does, and games are not to
// notice how it is found out, as far as that is possible: a game logs each connection, and
// one that serves a single player would serve the agent.
//
// On this machine the system's table of sockets shows whether a game waits for players,
// where it can be read. If it has just shown none, the target is probed: its port may be
// forwarded to a container. TCP targets on other machines are probed too, by a connection
// that is closed at once: when an allocation is new, every few seconds while the target
// is down, and rarely while it is up. UDP targets on other machines are probed only while
// they are down, by an empty datagram. If that is not refused, nothing is known.
//
// What players meet counts more than either.

const (
	// lookInterval is the time between two reads of the table, and minLookInterval
	// the least one when something has happened.
	lookInterval, minLookInterval = 2500 * time.Millisecond, 200 * time.Millisecond
	// lookShare is how many times as long as a read takes the next one waits, up to
	// maxLookInterval: the table has a socket for each UDP player.
	lookShare, maxLookInterval = 20, 10 * time.Second
	// reportInterval is the least time between two calls of Watch's changed about
	// local targets.
	reportInterval = 200 * time.Millisecond
)

// health is what the goroutines of Watch share with the rest of a Dialer.
type health struct {
	wake    chan struct{} // Holds one signal: there may be something to do.
	changed chan struct{} // Holds one signal: State has changed for an allocation.

	lookInterval time.Duration // The constant; tests have less time.

	// Guarded by the Dialer's mu.
	nextLook  time.Time // When to read the sockets, and
	earlyLook time.Time // when at the soonest if something has happened.
	probes    int       // Running ones.
	nextBatch time.Time // When more may start.
}

func newHealth() health {
	return health{wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), lookInterval: lookInterval}
}

// Watch calls changed, until ctx ends, when Check may return something else for a host,
// or State for an allocation. State changes only by players otherwise. A local target
// that starts or stops is noticed within a few seconds.
func (d *Dialer) Watch(ctx context.Context, changed func()) {
	var running sync.WaitGroup
	defer running.Wait()
	if d.watch != nil {
		running.Go(func() { d.watch(ctx, changed) })
	}
	running.Go(func() { d.watchTargets(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.health.changed:
		}
		changed()
		if !pause(ctx, nil, reportInterval) {
			return
		}
	}
}

// pause waits for a time, or for a signal, and reports whether ctx has not ended.
func pause(ctx context.Context, wake <-chan struct{}, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// watchTargets looks for local targets and probes them, until ctx ends.
func (d *Dialer) watchTargets(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		nextLook := d.look()
		due, nextProbe := d.takeDue(time.Now())
		for _, a := range due {
			running.Go(func() {
				defer d.release(a)
				d.probe(ctx, a)
			})
		}
		if !pause(ctx, d.health.wake, min(nextLook, nextProbe)) {
			return
		}
	}
}

// lookTarget is the target of an allocation during a look at the sockets.
type lookTarget struct {
	condition  *condition
	allocation types.ClientAllocation
	addresses  []netip.Addr
	distrusted bool
	refused    bool

	local  bool // It is on this machine and may be dialled.
	listed bool // A socket waits for its players.
}

func (t *lookTarget) port() localPort {
	return localPort{t.allocation.Protocol, t.allocation.LocalPort}
}

// look reads the sockets of this machine if that is due, for all allocations at once. It
// returns the time until it is due again.
func (d *Dialer) look() (next time.Duration) {
	begin := time.Now()
	targets, wait := d.lookTargets(begin)
	if wait > 0 {
		return wait
	}
	sockets := map[localPort][]socket{}
	for i := range targets {
		t := &targets[i]
		if t.local = d.local(t); t.local && !t.distrusted {
			sockets[t.port()] = nil
		}
	}
	var err error
	if len(sockets) > 0 {
		if err = readSockets(sockets); err != nil {
			d.log.Debug("sockets of this machine not read", slog.Any("error", err))
		}
	}
	for i := range targets {
		targets[i].listed = err == nil && d.hasSocket(&targets[i], sockets)
	}
	return d.looked(targets, begin, err)
}

// lookTargets returns the targets whose addresses are known, or the time until a look
// is due.
func (d *Dialer) lookTargets(now time.Time) (targets []lookTarget, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait = d.health.nextLook.Sub(now)
	for _, c := range d.conditions {
		if c.look && c.addresses != nil || c.looksFirst() && !c.probing && !c.probe.IsZero() && !c.probe.After(now) {
			wait = min(wait, d.health.earlyLook.Sub(now))
			break
		}
	}
	if wait > 0 {
		return nil, wait
	}
	for _, c := range d.conditions {
		if c.addresses != nil {
			targets = append(targets, lookTarget{
				condition: c, allocation: c.allocation, addresses: c.addresses, distrusted: c.distrusted, refused: c.refused,
			})
		}
	}
	if len(targets) == 0 {
		return nil, upInterval
	}
	return targets, 0
}

// looked records what a look has found out. It returns the time until the next one.
func (d *Dialer) looked(targets []lookTarget, begin time.Time, err error) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	cost := now.Sub(begin)
	pause := min(lookShare*cost, maxLookInterval)
	d.health.nextLook = begin.Add(max(d.health.lookInterval, pause))
	d.health.earlyLook = begin.Add(max(minLookInterval, pause))
	changed := false
	for i := range targets {
		t := &targets[i]
		if c := d.conditions[t.allocation.ID]; c != t.condition || c.refused != t.refused {
			continue // The target has changed meanwhile, or may have stopped since.
		}
		switch {
		case err != nil || !t.local:
			t.condition.unseen(!t.local, now)
		case !t.distrusted:
			changed = t.condition.seen(t.listed, now) || changed
		}
	}
	if changed {
		signal(d.health.changed)
	}
	return d.health.nextLook.Sub(now)
}

// seen records whether a socket waits for the target's players, and reports whether
// people see a difference.
func (c *condition) seen(listed bool, now time.Time) (changed bool) {
	first, lost, refused := c.look, c.listed && !listed, c.refused
	c.local, c.look, c.listed, c.refused = true, false, listed, false
	c.unlisted = !listed
	switch {
	case lost:
		changed = c.set(types.TargetDown, nothingListens(c.allocation), now)
		c.probe = now // It may be forwarded now.
		return changed
	case !listed:
		if first {
			c.probe = now
		}
		return false
	case refused:
		c.distrusted = true
		return false
	case c.state == types.TargetUp && c.probe.IsZero():
		return false
	default:
		return c.set(types.TargetUp, "", now)
	}
}

// unseen records that the sockets say nothing about the target: it is elsewhere, on
// another machine, or they cannot be read.
func (c *condition) unseen(elsewhere bool, now time.Time) {
	moved := elsewhere && c.trustedSocket() // It was seen here before.
	// UDP waits for a player: a game would get the datagram.
	if c.look && c.allocation.Protocol == types.ProtocolTCP || moved {
		c.probe = now
	}
	c.look, c.refused = false, false
	if elsewhere {
		c.local, c.listed = false, false
	}
}

// local reports whether a target is on this machine, and may be dialled.
func (d *Dialer) local(t *lookTarget) bool {
	for _, addr := range t.addresses {
		if !d.ownMachine(addr) || d.allowTo(netip.AddrPortFrom(addr, uint16(t.allocation.LocalPort))) != nil {
			return false
		}
	}
	return len(t.addresses) > 0 && d.Check(t.allocation) == nil
}

// hasSocket reports whether a socket that is not the agent's waits for a target's
// players.
func (d *Dialer) hasSocket(t *lookTarget, sockets map[localPort][]socket) bool {
	for _, s := range sockets[t.port()] {
		if t.allocation.Protocol == types.ProtocolUDP && !d.forPlayers(s) {
			continue
		}
		if slices.ContainsFunc(t.addresses, s.receives) {
			return true
		}
	}
	return false
}

// forPlayers reports whether a UDP socket can be a game's: it is no player's, and if it
// is connected, as a game's that serves one player, then to a player.
func (d *Dialer) forPlayers(s socket) bool {
	if d.hops.has(types.ProtocolUDP, s.local) {
		return false
	}
	return s.remote.Port() == 0 || d.hops.has(types.ProtocolUDP, s.remote)
}
