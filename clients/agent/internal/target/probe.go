package target

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	// firstRetry is the time between two probes of a target that is down, which grows
	// to lastRetry.
	firstRetry, lastRetry = 2 * time.Second, 5 * time.Second
	// upInterval is the time from the last player's connection, or probe, to the next
	// probe while the target is up, and until the allow-list is asked again.
	upInterval = 30 * time.Second
	// probeTimeout bounds the resolution of a name and a connection.
	probeTimeout = 4 * time.Second
	// refusalTimeout is how soon a datagram is refused.
	refusalTimeout = time.Second
	// maxProbes bounds the probes at the same time, and those that start within
	// batchInterval.
	maxProbes, batchInterval = 16, 200 * time.Millisecond
)

// takeDue returns the allocations whose targets are to be probed, each until release,
// and the time until there may be others.
func (d *Dialer) takeDue(now time.Time) (due []types.ClientAllocation, next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := &d.health
	next = upInterval
	for _, c := range d.conditions {
		unlisted := c.unlisted
		c.unlisted = false
		wait := c.probe.Sub(now)
		switch {
		case c.probing || c.probe.IsZero():
		case wait > 0:
			next = min(next, wait)
		case h.nextBatch.After(now):
			next = min(next, h.nextBatch.Sub(now))
		case c.looksFirst() && !unlisted:
			next = min(next, batchInterval)
		case h.probes < maxProbes: // The end of one has more started.
			c.probing = true
			h.probes++
			due = append(due, c.allocation)
		}
	}
	if len(due) > 0 {
		h.nextBatch = now.Add(batchInterval)
	}
	return due, next
}

// release ends the probe of an allocation.
func (d *Dialer) release(a types.ClientAllocation) {
	d.mu.Lock()
	d.health.probes--
	if c := d.current(a); c != nil {
		c.probing = false
	}
	d.mu.Unlock()
	signal(d.health.wake)
}

// probe finds out whether a local target can be reached.
func (d *Dialer) probe(ctx context.Context, a types.ClientAllocation) {
	if d.Check(a) != nil {
		d.probed(a, types.TargetUnknown, "")
		return
	}
	if !d.files.Take(a.ID, udpFiles) {
		return // It stays due. Players need the files more.
	}
	defer d.files.Give(a.ID, udpFiles)
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var err error
	if d.unresolved(a) {
		if err = d.resolve(bounded, a); err == nil {
			return // The look at the sockets comes first.
		}
	} else if err = d.probeAddress(bounded, a); err == nil {
		return
	}
	if ctx.Err() == nil {
		d.probed(a, types.TargetDown, unreachable(a, err))
	}
}

func (d *Dialer) unresolved(a types.ClientAllocation) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.current(a)
	return c != nil && c.addresses == nil
}

// resolve finds out the addresses of a name, once.
func (d *Dialer) resolve(ctx context.Context, a types.ClientAllocation) error {
	addresses, err := d.dialer.Lookup(ctx, "ip", a.LocalHost)
	if err != nil {
		return err
	}
	for i, addr := range addresses {
		addresses[i] = addr.Unmap()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.current(a)
	if c == nil {
		return nil
	}
	if c.state == types.TargetDown {
		c.set(types.TargetUnknown, "", time.Now())
	}
	signal(d.health.changed) // They may show that it leads back.
	c.addresses, c.probe = addresses, time.Time{}
	return nil
}

// probeAddress returns an error if the target refuses.
func (d *Dialer) probeAddress(ctx context.Context, a types.ClientAllocation) error {
	conn, err := d.dialer.DialContext(withSource(ctx, a, noPlayer), string(a.Protocol), address(a))
	if err != nil {
		return err
	}
	defer conn.Close()
	// Without the header that it expects a game would log an error. One that does not
	// take it is there all the same.
	header, _ := probeHeader(a)
	if a.Protocol == types.ProtocolTCP {
		if len(header) > 0 {
			_, _ = conn.Write(header)
		}
		d.probed(a, types.TargetUp, "")
		return nil
	}
	return d.probeUDP(ctx, a, conn, header)
}

// probeUDP sends a datagram and waits for its refusal.
func (d *Dialer) probeUDP(ctx context.Context, a types.ClientAllocation, conn net.Conn, datagram []byte) error {
	_ = conn.SetDeadline(time.Now().Add(refusalTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	_, err := conn.Write(datagram)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	var timeout net.Error
	switch {
	case err == nil:
		d.probed(a, types.TargetUp, "") // It has answered.
	case ctx.Err() != nil:
	case errors.As(err, &timeout) && timeout.Timeout():
		d.probed(a, types.TargetUnknown, "")
	default:
		return err
	}
	return nil
}
