package target

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// condition is what is known of an allocation's local target.
type condition struct {
	allocation types.ClientAllocation
	state      types.TargetState
	reason     string // Of down.

	addresses []netip.Addr // nil: a name that has not been resolved.
	look      bool         // The sockets are to be read at once.
	listed    bool         // They had one for the target when they were last read.
	refused   bool         // A player was refused since.
	// distrusted means that a player was refused although the sockets had one for the
	// target: it is in another network namespace, say, or for IPv6 alone. They count
	// no more until a player gets through.
	distrusted bool

	probe time.Time // When to probe the target; the zero Time: not until something happens.
	// local means that the target was on this machine at the last look at the sockets.
	// It is probed after a look alone that has shown none: a game may have started.
	local    bool
	unlisted bool // It has just been looked for, and may be probed.
	probing  bool
	failures int // Of probes and players since the target was last reached.

	answered bool // Also once it is said that it has not.
	warned   bool // Its players were said to be refused.
}

// State returns whether the local target of an allocation can be reached, as far as is
// known, and the reason if it cannot.
func (d *Dialer) State(id int64) (state types.TargetState, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.conditions[id]
	switch {
	case c == nil:
		return types.TargetUnknown, ""
	case d.looped[id] == address(c.allocation):
		return types.TargetDown, errLoop.Error()
	default:
		return c.state, c.reason
	}
}

// setConditions has a condition for each allocation, which is kept while its target is.
// It is called with mu held.
func (d *Dialer) setConditions() {
	for id, c := range d.conditions {
		if a, ok := d.allocations[id]; !ok || !sameTarget(c.allocation, a) {
			delete(d.conditions, id)
			d.hops.forget(id)
		}
	}
	for id, a := range d.allocations {
		if c := d.conditions[id]; c != nil {
			c.allocation = a
			continue
		}
		c := &condition{allocation: a, state: types.TargetUnknown, look: true}
		if addr, err := netip.ParseAddr(a.LocalHost); err == nil {
			c.addresses = []netip.Addr{addr.Unmap()}
		} else {
			c.probe = time.Now() // It resolves the name.
		}
		d.conditions[id] = c
	}
	signal(d.health.wake)
}

func sameTarget(a, b types.ClientAllocation) bool {
	return a.Protocol == b.Protocol && a.LocalHost == b.LocalHost && a.LocalPort == b.LocalPort
}

// current returns the condition of an allocation's local target, or nil if the
// allocation has another target now, or is gone. It is called with mu held.
func (d *Dialer) current(a types.ClientAllocation) *condition {
	if c := d.conditions[a.ID]; c != nil && sameTarget(c.allocation, a) {
		return c
	}
	return nil
}

// set sets the state and schedules the next probe. It reports whether people see a
// difference.
func (c *condition) set(state types.TargetState, reason string, now time.Time) (changed bool) {
	changed = state != c.state || reason != c.reason
	c.state, c.reason = state, reason
	if state == types.TargetDown {
		c.failures++
	} else {
		c.failures = 0
	}
	if state == types.TargetUp {
		c.warned = false
	}
	c.schedule(now)
	return changed
}

// schedule sets the time of the next probe.
func (c *condition) schedule(now time.Time) {
	delay := upInterval
	switch {
	case c.state == types.TargetDown:
		delay = min(firstRetry+time.Duration(max(0, c.failures-1))*time.Second, lastRetry)
	case c.allocation.Protocol == types.ProtocolUDP, c.state == types.TargetUp && c.trustedSocket():
		c.probe = time.Time{}
		return
	}
	c.probe = now.Add(delay*4/5 + rand.N(delay*2/5)) // Many agents, and many allocations, start at once.
}

// looksFirst reports whether the sockets are read before a probe.
func (c *condition) looksFirst() bool { return c.local && !c.distrusted }

// trustedSocket reports whether the sockets show that a program waits for players.
func (c *condition) trustedSocket() bool { return c.listed && !c.distrusted }

// reached records whether a player reached a local target.
func (d *Dialer) reached(a types.ClientAllocation, err error) {
	d.mu.Lock()
	c := d.current(a)
	if c == nil {
		d.mu.Unlock()
		return
	}
	var warn, again, changed bool
	if err == nil {
		again = c.warned
		c.answered, c.distrusted, c.refused = true, false, false
		changed = c.set(types.TargetUp, "", time.Now())
	} else {
		warn = !c.warned
		if c.state != types.TargetDown { // Not for each datagram of a player who is refused.
			c.refused, c.look = true, !c.distrusted
		}
		changed = c.set(types.TargetDown, unreachable(a, err), time.Now())
		c.warned = true
	}
	d.mu.Unlock()
	if changed {
		signal(d.health.wake)
		signal(d.health.changed)
	}
	switch {
	case warn:
		d.log.Warn("local target cannot be reached: its players are refused",
			slog.Int64("allocationId", a.ID), slog.String("target", address(a)), slog.String("reason", Reason(err)))
	case again:
		d.log.Info("local target can be reached again",
			slog.Int64("allocationId", a.ID), slog.String("target", address(a)))
	}
}

// probed records what a probe has found out.
func (d *Dialer) probed(a types.ClientAllocation, state types.TargetState, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.current(a)
	if c == nil {
		return
	}
	if c.trustedSocket() { // It was seen since the probe began.
		c.probe = time.Time{}
		return
	}
	if c.set(state, reason, time.Now()) {
		signal(d.health.changed)
	}
}

// Windows has its own numbers for what POSIX calls ECONNREFUSED, and ECONNRESET, which
// is how a UDP socket reports a refusal there.
const wsaConnReset, wsaConnRefused = syscall.Errno(10054), syscall.Errno(10061)

// unreachable describes for people why a local target cannot be reached, and what to do.
func unreachable(a types.ClientAllocation, err error) string {
	var refused *NotAllowedError
	switch {
	case errors.As(err, &refused):
		return refused.Error()
	case errors.Is(err, errLoop):
		return errLoop.Error()
	case errors.As(err, new(*net.DNSError)):
		return Reason(err) + ": " + a.LocalHost
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaConnRefused), errors.Is(err, wsaConnReset):
		return nothingListens(a)
	default:
		return Reason(err) + " at " + address(a)
	}
}

func nothingListens(a types.ClientAllocation) string {
	return "nothing listens on " + address(a) + ": start the game"
}

// unanswered logs, once for an allocation, that a flow has ended whose datagrams were
// not refused, but not answered either, as none before it: the game may answer from an
// address that is not received from.
func (d *Dialer) unanswered(a types.ClientAllocation) {
	d.mu.Lock()
	c := d.current(a)
	say := c != nil && c.state != types.TargetDown && !c.answered
	if say {
		c.answered = true
	}
	d.mu.Unlock()
	if say {
		d.log.Warn("local target has not answered a player: answers count only from the address and port it is reached at",
			slog.Int64("allocationId", a.ID), slog.String("target", address(a)))
	}
}

// signal leaves a signal in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
