package target

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// hostName matches names of DNS and hosts files, and underscores, which are not
// allowed there but common in container networks.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// portRange is the ports from first to last.
type portRange struct{ first, last int }

// portSet is a set of ports.
type portSet []portRange

// allPorts has 0, which stands for a port that does not matter.
var allPorts = portRange{0, 65535}

func (s portSet) has(port int) bool {
	for _, r := range s {
		if r.first <= port && port <= r.last {
			return true
		}
	}
	return false
}

// texts returns the set as parsePorts takes it.
func (s portSet) texts() []string {
	var texts []string
	for _, r := range s {
		text := strconv.Itoa(r.first)
		if r.last > r.first {
			text += "-" + strconv.Itoa(r.last)
		}
		texts = append(texts, text)
	}
	return texts
}

// parsePorts parses a port or a range, such as 2456-2458.
func parsePorts(text string) (portRange, bool) {
	from, to, isRange := strings.Cut(strings.TrimSpace(text), "-")
	if !isRange {
		to = from
	}
	first, firstErr := strconv.ParseUint(from, 10, 16)
	last, lastErr := strconv.ParseUint(to, 10, 16)
	return portRange{int(first), int(last)}, firstErr == nil && lastErr == nil && first > 0 && first <= last
}

// ParseAllowList returns an allow-list of this machine and these entries: host names, IP
// addresses and CIDR prefixes, each for all ports or, after a colon, for one port or a
// range: game.lan, 192.168.1.0/24:25565, [fd00::5]:2456-2458. OwnPorts, in the same form,
// are those to which this machine is restricted; none: all are allowed. Errors name the
// entry.
func ParseAllowList(entries, ownPorts []string) (*AllowList, error) {
	l := &AllowList{own: newOwnAddresses(), names: map[string]portSet{}, addrs: map[netip.Addr]portSet{}}
	for _, text := range ownPorts {
		ports, ok := parsePorts(text)
		if !ok {
			return nil, fmt.Errorf("%q is not a port of this machine to allow: "+
				"give a number from 1 to 65535, or a range such as 2456-2458", text)
		}
		l.ownPorts = append(l.ownPorts, ports)
	}
	for _, entry := range entries {
		if err := l.add(entry); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *AllowList) add(entry string) error {
	if ports, ok := parsePorts(strings.TrimPrefix(entry, ":")); ok {
		text := portSet{ports}.texts()[0]
		return fmt.Errorf("%q has no host: allow a port of another machine as HOST:%s, "+
			"and restrict this one to its ports with --allow-ports %s", entry, text, text)
	}
	host, text, hasPorts := cutPorts(entry)
	ports := allPorts
	if hasPorts {
		var ok bool
		if ports, ok = parsePorts(text); !ok {
			return fmt.Errorf("%q is not a host to allow: %q is not a port from 1 to 65535, or a range such as 2456-2458", entry, text)
		}
	}
	var own bool
	if prefix, err := netip.ParsePrefix(host); err == nil {
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		own = prefix.Addr().IsLoopback() && prefix.Bits() >= 8
		l.prefixes = append(l.prefixes, allowedPrefix{prefix.Masked(), portSet{ports}})
	} else if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		own = addr.IsLoopback()
		l.addrs[addr] = append(l.addrs[addr], ports)
	} else {
		name := normalName(host)
		// Only digits and dots make a misspelt address: resolvers disagree on what
		// 127.1 is.
		if !hostName.MatchString(name) || strings.Trim(name, "0123456789.") == "" {
			return fmt.Errorf("%q is not a host to allow: give a host name, an IP address or a prefix such as 192.168.1.0/24, "+
				"and its ports after a colon if not all are meant, such as game.lan:25565 or [fd00::5]:2456-2458", entry)
		}
		own = netaddr.IsLocalhost(name)
		l.names[name] = append(l.names[name], ports)
	}
	if own && hasPorts {
		return fmt.Errorf("%q is this machine, which may always be reached: restrict it to its ports with --allow-ports %s", entry, text)
	}
	return nil
}

// cutPorts splits an entry into its host and its ports. An IPv6 address with ports has
// brackets, which a prefix may have too, around the whole or the address.
func cutPorts(entry string) (host, ports string, hasPorts bool) {
	if inner, rest, closed := strings.Cut(entry, "]"); closed && strings.HasPrefix(inner, "[") && strings.Contains(inner, ":") {
		length, text, found := strings.Cut(rest, ":")
		if !found || length != "" && length[0] != '/' {
			return entry, "", false
		}
		return inner[1:] + length, text, true
	}
	if address, rest, isPrefix := strings.Cut(entry, "/"); isPrefix {
		length, text, found := strings.Cut(rest, ":")
		return address + "/" + length, text, found
	}
	if strings.Count(entry, ":") == 1 {
		return strings.Cut(entry, ":")
	}
	return entry, "", false
}
