// Package netaddr says what counts as one address, one host and one prefix.
package netaddr

import (
	"net"
	"net/netip"
)

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
