package netaddr

import (
	"errors"
	"net/netip"
	"strings"
)

var (
	errPrefix     = errors.New("must be an IP address, or a prefix such as 203.0.113.0/24")
	errPrefixZone = errors.New("must be an IP address or a prefix without a zone")
)

// ParsePrefix parses an IP address, as a prefix of its whole length, or a prefix in CIDR
// notation, whose bits after its length are dropped. An IPv4-mapped IPv6 address counts
// as IPv4. The error is a phrase for people that follows the name of the field.
func ParsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "%") {
		return netip.Prefix{}, errPrefixZone
	}
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errPrefix
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
