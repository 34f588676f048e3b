package target

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// ownAge is how long the machine's addresses are believed: a read is a system call,
	// and players come faster.
	ownAge = time.Second
	// ownInterval is how often the addresses are compared for Watch.
	ownInterval = 5 * time.Second
)

// ownAddresses are the addresses of this machine's interfaces, besides the loopback, as
// they change. It is safe for concurrent use.
type ownAddresses struct {
	interfaces func() ([]net.Addr, error) // net.InterfaceAddrs.

	mu     sync.Mutex
	addrs  map[netip.Addr]bool
	readAt time.Time
}

func newOwnAddresses() *ownAddresses {
	return &ownAddresses{interfaces: net.InterfaceAddrs}
}

// has reports whether the machine has had an address within the last second. An address
// with a zone is looked up on the interface that the zone names.
func (o *ownAddresses) has(addr netip.Addr) bool {
	addr = addr.Unmap()
	if zone := addr.Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return false
		}
		addrs, err := i.Addrs()
		return err == nil && unicast(addrs)[addr.WithZone("")]
	}
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		return false // It says nothing without the interface.
	}
	return o.read(ownAge)[addr]
}

// ownMachine reports whether an address is one of this machine's.
func (d *Dialer) ownMachine(addr netip.Addr) bool {
	return addr.Unmap().IsLoopback() || d.own.has(addr)
}

// read returns the addresses, which are at most age old and must not be changed.
func (o *ownAddresses) read(age time.Duration) map[netip.Addr]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.addrs != nil && now.Sub(o.readAt) < age {
		return o.addrs
	}
	addrs, err := o.interfaces()
	if err != nil {
		addrs = nil // What cannot be read is no longer permitted.
	}
	o.addrs, o.readAt = unicast(addrs), now
	return o.addrs
}

// unicast returns the addresses that one machine has: the system's list may also have
// those of groups.
func unicast(addrs []net.Addr) map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, addr := range addrs {
		network, ok := addr.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(network.IP)
		if ip = ip.Unmap(); ok && (ip.IsGlobalUnicast() || ip.IsLinkLocalUnicast()) {
			own[ip] = true
		}
	}
	return own
}

// watch calls changed each time that the addresses differ from before, until ctx ends.
func (o *ownAddresses) watch(ctx context.Context, changed func()) {
	tick := time.NewTicker(ownInterval)
	defer tick.Stop()
	for last := o.read(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := o.read(0); !maps.Equal(now, last) {
			last = now
			changed()
		}
	}
}
