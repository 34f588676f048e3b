package netaddr_test

import (
	"net/netip"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

func TestSource_IsAnAddressOrANetworkOfIPv6(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%2": "fe80::",
	} {
		if got := netaddr.Source(netip.MustParseAddr(address)); got.String() != want {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
}
