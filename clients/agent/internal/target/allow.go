package target

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// AllowList is the local targets that an agent may dial, whatever the panel asks for.
// This machine, by localhost, the loopback and the addresses of its interfaces as they
// change, is always on a parsed list, with all its ports or those it is restricted to;
// the zero value permits nothing. It is safe for concurrent use.
type AllowList struct {
	own      *ownAddresses // nil: none.
	ownPorts portSet       // Of this machine; nil: all.
	names    map[string]portSet
	addrs    map[netip.Addr]portSet
	prefixes []allowedPrefix
}

type allowedPrefix struct {
	prefix netip.Prefix
	ports  portSet
}

// NotAllowedError reports a local target that is not on the allow-list.
type NotAllowedError struct {
	Host string
	Port int // 0: it does not matter.
	// OwnPorts are set where the host is this machine, and has other ports that may be
	// dialled: numbers, and ranges such as 2456-2458.
	OwnPorts []string
	// listed is set where the host has other ports that may be dialled.
	listed bool
}

// maxFlag is the longest list of ports in a reason, in bytes: reasons have a limit.
const maxFlag = 200

func (e *NotAllowedError) Error() string {
	addr, err := netip.ParseAddr(e.Host)
	port := strconv.Itoa(e.Port)
	switch {
	case len(e.OwnPorts) > 0 && len(strings.Join(e.OwnPorts, ",")) > maxFlag:
		return fmt.Sprintf("port %s of the agent's machine is not on its allow-list: "+
			"restart the agent with this port in --allow-ports", port)
	case len(e.OwnPorts) > 0:
		return fmt.Sprintf("port %s of the agent's machine is not on its allow-list: "+
			"restart the agent as: eclitunnel run %s", port, e.Flag(port))
	case err == nil && addr.Unmap().IsUnspecified():
		return fmt.Sprintf("local host %q is not on the agent's allow-list: it is where a game listens; the agent reaches it at 127.0.0.1", e.Host)
	case err == nil && addr.IsMulticast():
		return fmt.Sprintf("local host %q is not on the agent's allow-list: it is the address of a group of machines", e.Host)
	case e.listed:
		// The host once: names are long, and reasons short.
		return fmt.Sprintf("other ports of the local host are on the agent's allow-list, and this one is not: "+
			"restart the agent with, in addition: %s", e.Flag(port))
	case e.Port == 0:
		port = ""
	}
	return fmt.Sprintf("the local host is neither an address of the agent's machine nor on its allow-list: "+
		"use 127.0.0.1 for a game on that machine, or restart the agent as: eclitunnel run %s", e.Flag(port))
}

// Flag returns the flag of the command eclitunnel run that allows ports of the host: a
// number, a range, or "" for all.
func (e *NotAllowedError) Flag(ports string) string {
	if len(e.OwnPorts) > 0 {
		return "--allow-ports " + strings.Join(append(e.OwnPorts[:len(e.OwnPorts):len(e.OwnPorts)], ports), ",")
	}
	host := e.Host
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() && ports != "" {
		host = "[" + host + "]"
	} else if err != nil && !hostName.MatchString(normalName(host)) {
		host = strconv.Quote(host) // The panel may send anything.
	}
	if ports != "" {
		host += ":" + ports
	}
	return "--allow " + host
}

// Check returns a [*NotAllowedError] unless the host may be dialled at the port. A name
// is permitted only if it is listed itself, never by the address it resolves to: its
// name server could otherwise choose among the permitted addresses. A listed name is
// trusted with the address that it has at the time; see CheckAddress.
func (l *AllowList) Check(host string, port int) error {
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil:
		return l.checkAddr(host, addr.Unmap(), port) // The system dials ::ffff:127.0.0.1 as 127.0.0.1.
	case l.own != nil && netaddr.IsLocalhost(host):
		return l.checkOwn(host, port)
	}
	ports, listed := l.names[normalName(host)]
	if ports.has(port) {
		return nil
	}
	return &NotAllowedError{Host: host, Port: port, listed: listed}
}

func (l *AllowList) checkAddr(host string, addr netip.Addr, port int) error {
	always := l.own != nil && (addr.IsLoopback() && addr.Zone() == "" || l.own.has(addr))
	if !always {
		if allowed, listed := l.lists(addr, port); !allowed {
			return &NotAllowedError{Host: host, Port: port, listed: listed}
		}
	}
	if l.restricts(addr) {
		return l.checkOwn(host, port)
	}
	return nil
}

// lists reports whether the entries have a port of an address, and whether any.
func (l *AllowList) lists(addr netip.Addr, port int) (allowed, listed bool) {
	ports, listed := l.addrs[addr]
	allowed = ports.has(port)
	for _, entry := range l.prefixes {
		// An address with a zone is in no prefix: it belongs to one interface.
		if entry.prefix.Contains(addr) {
			listed, allowed = true, allowed || entry.ports.has(port)
		}
	}
	return allowed, listed
}

// CheckAddress returns a [*NotAllowedError] if an address to which a permitted name has
// been resolved must not be dialled all the same: at a port of this machine that is not
// among those that the machine is restricted to, whatever else is listed.
func (l *AllowList) CheckAddress(to netip.AddrPort) error {
	addr := to.Addr().Unmap()
	if !l.restricts(addr) {
		return nil
	}
	return l.checkOwn(addr.String(), int(to.Port()))
}

// restricts reports whether an address leads to this machine, and that is restricted to
// some ports.
func (l *AllowList) restricts(addr netip.Addr) bool {
	// The system dials an unspecified address as the loopback.
	return l.ownPorts != nil && (addr.IsLoopback() || addr.IsUnspecified() || l.own.has(addr))
}

// checkOwn checks a port of this machine.
func (l *AllowList) checkOwn(host string, port int) error {
	if l.ownPorts == nil || l.ownPorts.has(port) {
		return nil
	}
	return &NotAllowedError{Host: host, Port: port, OwnPorts: l.ownPorts.texts()}
}

// Watch calls changed each time that the addresses of this machine have changed, and
// what Check returns may have with them, until ctx ends. It notices a change within 5 s.
func (l *AllowList) Watch(ctx context.Context, changed func()) {
	if l.own != nil {
		l.own.watch(ctx, changed)
	}
}

// normalName makes names comparable: DNS ignores case, and a final dot only marks
// a name as complete.
func normalName(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
