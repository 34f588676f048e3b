// Package netaddr says what counts as one address, and as one source of
// connections.
package netaddr

import (
	"net"
	"net/netip"
)

// Source returns what a limit counts as one source: an IPv4 address, or the /64 of
// an IPv6 address, which one subscriber has the whole of (RFC 4291 section 2.5.1).
// Zones are dropped.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	network, _ := a.Prefix(64) // It fails for other lengths of address only.
	return network.Addr()
}

// OfTCP returns the address and port of a TCP address, an IPv4-mapped one as IPv4.
// It is invalid for any other kind of address.
func OfTCP(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return Unmap(t.AddrPort())
}

// Unmap returns an IPv4-mapped IPv6 address as IPv4, and any other as it is.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
