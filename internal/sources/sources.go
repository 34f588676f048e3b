// Package sources counts what each source of connections or datagrams has, finds the
// one that has most, and limits how fast each may have more.
//
// A source is what one subscriber has: an IPv4 address, or the /64 of an IPv6 address
// (RFC 4291 section 2.5.1). Because many subscribers have more than one /64, the /56
// and the /48 around it are counted too, with bounds of their own (see [Width]).
package sources

import "net/netip"

// levels is the number of networks that an address is counted in, at most.
const levels = 3

// Width is how many times the bound of a source the networks around it have together:
// the /64, the /56 and the /48. IPv4 addresses have no networks around them.
var Width = [levels]int{1, 2, 4}

// bits are the lengths of the prefixes of IPv6, as Width.
var bits = [levels]int{64, 56, 48}

// networks are the networks of a source, narrowest first.
type networks struct {
	n    int
	list [levels]netip.Prefix
}

func networksOf(a netip.Addr) networks {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		// Of an invalid address, as of a peer that has none, the prefix is invalid too,
		// and is a source like any other.
		prefix, _ := a.Prefix(32)
		return networks{n: 1, list: [levels]netip.Prefix{prefix}}
	}
	n := networks{n: levels}
	for i, length := range bits {
		n.list[i], _ = a.Prefix(length) // It fails for other lengths of address only.
	}
	return n
}

// Of returns the source of an address, as a prefix: a /32 of IPv4 or a /64 of IPv6. It
// is invalid if the address is.
func Of(a netip.Addr) netip.Prefix { return networksOf(a).list[0] }

// Networks returns the networks in which an address is counted, narrowest first: its
// source, and for IPv6 the /56 and the /48 around it. The index of each is that of its
// [Width].
func Networks(a netip.Addr) []netip.Prefix {
	n := networksOf(a)
	return n.list[:n.n]
}
