package netaddr

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// maxHost is the length of the longest host name in bytes (RFC 1035 section 2.3.4),
// without a final dot.
const maxHost = 253

// label is a label of a host name (RFC 1123 section 2.1). Underscores are not of host
// names, but resolvers of containers and of Windows accept them.
var label = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// broadcast means every machine of the network (RFC 919 section 7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

var (
	errHost      = errors.New("must be a host name or an IP address")
	errLocalPort = errors.New("must be a host name or an IP address alone; a port belongs in localPort")
	errPort      = errors.New("must be a host name or an IP address alone, without a port")
	errURL       = errors.New("must be a host name or an IP address alone, not a URL")
	errBrackets  = errors.New("must be an IPv6 address without brackets")
	errLong      = errors.New("must be at most 253 characters long")
	errNumber    = errors.New("must be an IPv4 address with four numbers up to 255, or a host name")
	errZone      = errors.New("must be an address without a zone, which has a meaning on one machine only")
	errUnusable  = errors.New("must be an address that other machines can connect to")
)

// IsLocalhost reports whether a host name means the machine itself by its loopback:
// localhost, and every name below it (RFC 6761 section 6.3). Such names must not be
// looked up: an answer of a resolver or a hosts file may be another machine.
func IsLocalhost(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(name); err == nil {
		return false // Its zone may end in anything.
	}
	return (name == "localhost" || strings.HasSuffix(name, ".localhost")) && checkHost(name, errHost) == nil
}

// CheckLocalHost returns nil if host can be resolved or dialled on the agent's machine:
// an IP address, where one of IPv6 has no brackets and may have a zone, or a host name.
// The error is a phrase for people that follows the name of the field.
func CheckLocalHost(host string) error {
	return checkHost(host, errLocalPort)
}

// CheckPublicHost returns nil if other machines can connect to host: as CheckLocalHost,
// but without a zone, and not an unspecified, multicast or broadcast address.
func CheckPublicHost(host string) error {
	if err := checkHost(host, errPort); err != nil {
		return err
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return nil // A name.
	}
	if address.Zone() != "" {
		return errZone
	}
	address = address.Unmap()
	if address.IsUnspecified() || address.IsMulticast() || address == broadcast {
		return errUnusable
	}
	return nil
}

func checkHost(host string, withPort error) error {
	if address, err := netip.ParseAddr(host); err == nil {
		if strings.ContainsFunc(address.Zone(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errHost
		}
		return nil
	}
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		return errBrackets
	}
	if strings.ContainsAny(host, "/?#@") {
		return errURL
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return withPort
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > maxHost {
		return errLong
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !label.MatchString(l) {
			return errHost
		}
	}
	// No top-level domain is a number; resolvers disagree on what 127.1 means.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errNumber
	}
	return nil
}

// Canonical returns a host in one spelling: two hosts that mean the same by their text
// alone are equal. It does not look names up.
func Canonical(host string) string {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if address, err := netip.ParseAddr(host); err == nil {
		return address.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// IsLoopbackHost reports whether a host is the machine itself: an address of the
// loopback, or one of the names of [IsLocalhost].
func IsLoopbackHost(host string) bool {
	if address, err := netip.ParseAddr(Canonical(host)); err == nil {
		return address.IsLoopback()
	}
	return IsLocalhost(host)
}

// IsPublicName reports whether a host is a name that does not mean the machine itself.
func IsPublicName(host string) bool {
	_, err := netip.ParseAddr(Canonical(host))
	return err != nil && host != "" && !IsLocalhost(host)
}
