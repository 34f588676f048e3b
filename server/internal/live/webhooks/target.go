package webhooks

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"syscall"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

// errTarget is an address that the panel does not send to.
var errTarget = errors.New("the address is private, or the panel's own")

// Prefixes that are no addresses of others on the Internet, besides those that [netip.Addr] knows: the special-purpose
// registries of IANA (RFC 6890). Of IPv6 only 2000::/3 is global unicast.
var (
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	special    = prefixes(
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", // Teredo and ORCHID, documentation, 6to4.
	)
	// nat64 embeds an IPv4 address in its last 32 bits (RFC 6052 section 2.1).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// public reports whether an address is that of a machine on the Internet.
func public(address netip.Addr) bool {
	if address.Zone() != "" {
		return false
	}
	address = address.Unmap()
	if nat64.Contains(address) {
		bytes := address.As16()
		address = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if !address.IsGlobalUnicast() || address.IsPrivate() || address.Is6() && !globalIPv6.Contains(address) {
		return false
	}
	for _, prefix := range special {
		if prefix.Contains(address) {
			return false
		}
	}
	return true
}

// guard decides which addresses are connected to.
type guard struct {
	private bool // All but those that are no address of a machine.
	// own returns the addresses of this machine.
	own func() ([]net.Addr, error)
}

// check returns errTarget if the address must not be connected to.
func (g guard) check(address netip.Addr) error {
	if !address.IsValid() || address.Unmap().IsUnspecified() || address.Unmap().IsMulticast() {
		return errTarget
	}
	if g.private {
		return nil
	}
	if !public(address) {
		return errTarget
	}
	own, err := g.own()
	if err != nil {
		return fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range own {
		if network, ok := a.(*net.IPNet); ok {
			if mine, ok := netip.AddrFromSlice(network.IP); ok && mine.Unmap() == address.Unmap() {
				return errTarget
			}
		}
	}
	return nil
}

// control is that of a net.Dialer: it checks the address of each connection before it is opened, whatever it was
// resolved from.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return errTarget
	}
	return g.check(target.Addr())
}

// topic is a topic of ntfy.
var topic = regexp.MustCompile(`^/[-_A-Za-z0-9]{1,64}$`)

// CheckURL returns the scheme, host and port of a URL to which messages of a format are sent, such as
// https://example.com:443. The error is a phrase for people that follows the name of the field, and does not quote the
// URL.
func (s *Service) CheckURL(text string, format types.WebhookFormat) (target string, err error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.Fragment != "":
		return "", errors.New("must be a URL such as https://example.com/path")
	case u.Scheme != "https" && (u.Scheme != "http" || !s.opts.PrivateTargets):
		return "", errors.New("must begin with https://")
	case format == types.WebhookNtfy && !topic.MatchString(u.Path):
		return "", errors.New("must have a topic of ntfy as its path, such as https://ntfy.sh/my-topic")
	}
	host := netaddr.Canonical(u.Hostname())
	if netaddr.CheckLocalHost(host) != nil {
		return "", errors.New("must be a URL such as https://example.com/path")
	}
	if s.forbidden(host) {
		return "", errors.New("must not lead to a private address, or to the panel itself")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), defaultPorts[u.Scheme]), 10, 16)
	if err != nil {
		return "", errors.New("must be a URL such as https://example.com/path")
	}
	return u.Scheme + "://" + net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
}

// defaultPorts are written out in targets, so that a host has one target whether its URL has the port or not.
var defaultPorts = map[string]string{"https": "443", "http": "80"}

// forbidden reports whether a host is known not to be sent to. What a name leads to is checked when that is connected to.
func (s *Service) forbidden(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return s.sender.guard.check(address) != nil
	}
	return !s.opts.PrivateTargets && (netaddr.IsLocalhost(host) || host == netaddr.Canonical(s.opts.PublicURL.Hostname()))
}
