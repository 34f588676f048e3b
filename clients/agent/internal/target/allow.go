package target

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// loopback is always allowed: the agent's own machine, under the names and
// addresses that cannot mean another machine. 0.0.0.0 and :: are not included,
// although some systems treat them as the loopback. The addresses of the machine's
// interfaces are allowed as long as it has them.
var loopback = []string{"localhost", "127.0.0.0/8", "::1"}

// hostName matches names of DNS and hosts files, and underscores, which are not
// allowed there but common in container networks.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// AllowList is the local hosts that an agent may dial, whatever the panel asks for.
// This machine, by the loopback and the addresses of its interfaces as they change, is
// always on a parsed list; the zero value permits nothing. It is safe for concurrent
// use.
type AllowList struct {
	own      *ownAddresses // nil: none.
	names    map[string]bool
	addrs    map[netip.Addr]bool
	prefixes []netip.Prefix
}

// NotAllowedError reports a host that is not on the allow-list.
type NotAllowedError struct{ Host string }

func (e *NotAllowedError) Error() string {
	addr, err := netip.ParseAddr(e.Host)
	if err == nil && addr.Unmap().IsUnspecified() {
		return fmt.Sprintf("local host %q is not on the agent's allow-list: it is where a game listens; the agent reaches it at 127.0.0.1", e.Host)
	}
	if err == nil && addr.IsMulticast() {
		return fmt.Sprintf("local host %q is not on the agent's allow-list: it is the address of a group of machines", e.Host)
	}
	host := e.Host
	if err != nil && !hostName.MatchString(normalName(host)) {
		host = strconv.Quote(host) // The panel may send anything.
	}
	// The host once: names are long, and reasons short.
	return fmt.Sprintf("the local host is neither an address of the agent's machine nor on its allow-list: "+
		"use 127.0.0.1 for a game on that machine, or restart the agent as: eclitunnel run --allow %s", host)
}

// ParseAllowList returns an allow-list of this machine and these entries: host names,
// IP addresses and CIDR prefixes.
func ParseAllowList(entries []string) (*AllowList, error) {
	l := &AllowList{own: newOwnAddresses(), names: map[string]bool{}, addrs: map[netip.Addr]bool{}}
	for _, entry := range append(append([]string{}, loopback...), entries...) {
		if err := l.add(entry); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *AllowList) add(entry string) error {
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		l.prefixes = append(l.prefixes, prefix.Masked())
		return nil
	}
	if addr, err := netip.ParseAddr(entry); err == nil {
		l.addrs[addr.Unmap()] = true
		return nil
	}
	name := normalName(entry)
	// Only digits and dots make a misspelt address: resolvers disagree on what
	// 127.1 is.
	if !hostName.MatchString(name) || strings.Trim(name, "0123456789.") == "" {
		return fmt.Errorf("%q is not a host to allow: give a host name, an IP address or a prefix such as 192.168.1.0/24, without a port", entry)
	}
	l.names[name] = true
	return nil
}

// Check returns a [*NotAllowedError] unless the host may be dialled. A name is
// permitted only if it is listed itself, never by the address it resolves to: its
// name server could otherwise choose among the permitted addresses. A listed name
// is trusted with the address that it has at the time.
func (l *AllowList) Check(host string) error {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if l.names[normalName(host)] {
			return nil
		}
		return &NotAllowedError{Host: host}
	}
	addr = addr.Unmap() // The system dials ::ffff:127.0.0.1 as 127.0.0.1.
	if l.addrs[addr] {
		return nil
	}
	for _, prefix := range l.prefixes {
		// An address with a zone is in no prefix: it belongs to one interface.
		if prefix.Contains(addr) {
			return nil
		}
	}
	if l.own != nil && l.own.has(addr) {
		return nil
	}
	return &NotAllowedError{Host: host}
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
