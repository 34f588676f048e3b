package target

import (
	"maps"
	"net"
	"net/netip"
	"strconv"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// Where players reach the client's own allocations is known, and so are loops that stay
// among these: they are refused before anything is dialled, through NAT too.

// publicEnd is where players reach an allocation.
type publicEnd struct {
	protocol types.Protocol
	host     string // A canonicalHost.
	port     int
}

// canonicalHost makes hosts comparable. It returns "" for those that are another machine
// on each machine, the loopback among them: players elsewhere cannot mean it.
func canonicalHost(host string) string {
	addr, err := netip.ParseAddr(host)
	if addr = addr.Unmap(); err == nil {
		if addr.IsLoopback() || addr.IsUnspecified() {
			return ""
		}
		return addr.WithZone("").String()
	}
	if netaddr.IsLocalhost(host) {
		return ""
	}
	return normalName(host)
}

// SetServers replaces the tunnel servers at which players reach the allocations.
func (d *Dialer) SetServers(servers []types.ClientServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers = map[uuid.UUID]types.ClientServer{}
	for _, s := range servers {
		d.servers[s.ID] = s
	}
	d.setPublic()
}

// setPublic notes where players reach the allocations. It is called with mu held.
func (d *Dialer) setPublic() {
	public := map[publicEnd]int64{}
	for _, a := range d.allocations {
		host, text, err := net.SplitHostPort(a.PublicAddress)
		port, portErr := strconv.Atoi(text)
		if err != nil || portErr != nil {
			continue
		}
		hosts := []string{host}
		server := d.servers[a.ServerID]
		if agents, _, err := net.SplitHostPort(server.Address); err == nil {
			hosts = append(hosts, agents) // The same machine.
		}
		if server.PublicAddresses != nil {
			hosts = append(hosts, *server.PublicAddresses...)
		}
		for _, host := range hosts {
			if host = canonicalHost(host); host != "" {
				public[publicEnd{a.Protocol, host, port}] = a.ID
			}
		}
	}
	if !maps.Equal(d.public, public) {
		d.public = public
		clear(d.looped) // What was said may be true no longer.
	}
}

// leadsBack returns the allocations by which an allocation's target leads to its own
// public port, if the addresses show it; none: they do not. A valid to is the address at
// which the target is about to be dialled.
func (d *Dialer) leadsBack(a types.ClientAllocation, to netip.Addr) []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var through []int64
	for next := a; len(through) <= len(d.allocations); to = (netip.Addr{}) {
		id, ok := d.published(next, to)
		if !ok {
			return nil
		}
		through = append(through, id)
		if id == a.ID {
			return through
		}
		next = d.allocations[id]
	}
	return nil // Into a loop of others, whose players are refused there.
}

// published returns the allocation whose public port is the target of another one. It is
// called with mu held.
func (d *Dialer) published(a types.ClientAllocation, to netip.Addr) (id int64, ok bool) {
	hosts := []string{a.LocalHost}
	if to.IsValid() {
		hosts = []string{to.String()}
	} else if c := d.current(a); c != nil {
		for _, addr := range c.addresses {
			hosts = append(hosts, addr.String())
		}
	}
	for _, host := range hosts {
		if id, ok = d.public[publicEnd{a.Protocol, canonicalHost(host), a.LocalPort}]; ok {
			return id, true
		}
	}
	return 0, false
}
