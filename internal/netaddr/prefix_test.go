package netaddr_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

func TestParsePrefix_TakesAddressesAndPrefixes(t *testing.T) {
	for s, want := range map[string]string{
		"203.0.113.7":             "203.0.113.7/32",
		"203.0.113.7/24":          "203.0.113.0/24",
		"0.0.0.0/0":               "0.0.0.0/0",
		"::ffff:203.0.113.7":      "203.0.113.7/32",
		"::ffff:203.0.113.0/120":  "203.0.113.0/24",
		"2001:db8::7":             "2001:db8::7/128",
		"2001:DB8:1:2::7/48":      "2001:db8:1::/48",
		"":                        "",
		"203.0.113":               "",
		"203.0.113.7/33":          "",
		"203.0.113.07":            "",
		"fe80::1%eth0":            "",
		"fe80::%eth0/64":          "",
		"game.example.com":        "",
		"203.0.113.7:25565":       "",
		" 203.0.113.7":            "",
		"203.0.113.1-203.0.113.9": "",
	} {
		got, err := netaddr.ParsePrefix(s)
		if want == "" {
			if err == nil {
				t.Errorf("%q is %s, want an error", s, got)
			}
		} else if err != nil || got.String() != want {
			t.Errorf("%q is %s, %v; want %s", s, got, err, want)
		}
	}
}
