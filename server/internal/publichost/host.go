// Package publichost knows at which host players and agents reach a tunnel server: it
// guesses the host if nobody has set it, follows the tunnel server when that calls from
// another address, and finds the addresses of a name.
package publichost

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

// missingGrace is for how long a name that existed before may be missing until Warning
// says so.
const missingGrace = 15 * time.Minute

// Guess returns the public host of a tunnel server that calls the panel from an address:
// that address, or own, the panel's host, if it calls from the panel's machine. It
// returns "" if the address is not known.
func Guess(from netip.Addr, own string) string {
	switch {
	case !from.IsValid():
		return ""
	case from.IsLoopback():
		return own
	default:
		return from.String()
	}
}

// Addresses returns the IP addresses of a public host, of which resolved are those that
// a name has. It is never nil.
func Addresses(host string, resolved db.Addresses) []string {
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{host}
	}
	return append([]string{}, resolved.List()...)
}

// Warning says what keeps players from a public host, or "" if nothing known does.
func Warning(host db.Host, now time.Time) string {
	addresses := Addresses(host.PublicHost, host.PublicAddresses)
	if since := host.UnresolvedSince; since != nil && (len(addresses) == 0 || now.Sub(*since) >= missingGrace) {
		return fmt.Sprintf("the public host %s has not existed since %s, according to the panel's DNS resolver",
			host.PublicHost, since.UTC().Format(time.RFC3339))
	}
	for _, text := range addresses {
		if address, err := netip.ParseAddr(text); err != nil || address.Unmap().Is4() {
			return ""
		}
	}
	if len(addresses) == 0 {
		return ""
	}
	return fmt.Sprintf("players without IPv6 cannot join at %s; set an IPv4 address, or a name that has one, as the public host",
		host.PublicHost)
}

// reach is how many players reach a host: the panel's own host, which stands for a
// tunnel server on its machine, private addresses, IPv6, IPv4.
func reach(host string) int {
	address, err := netip.ParseAddr(host)
	if err != nil {
		return 0
	}
	address = address.Unmap()
	rank := 1
	if public(address) {
		rank += 2
	}
	if address.Is4() {
		rank++
	}
	return rank
}

// carrierGrade is the address space between a provider and its customers (RFC 6598).
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// IsPublic reports whether an address can be one on the Internet.
func IsPublic(address netip.Addr) bool { return public(address) }

func public(address netip.Addr) bool {
	return address.IsGlobalUnicast() && !address.IsPrivate() && !carrierGrade.Contains(address)
}
