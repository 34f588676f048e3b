package target

import (
	"errors"
	"testing"
)

func TestAllowList_Check(t *testing.T) {
	for name, c := range map[string]struct {
		entries []string
		allowed []string
		refused []string
	}{
		"only the loopback by default": {
			nil,
			[]string{"localhost", "LocalHost", "localhost.", "127.0.0.1", "127.8.8.8", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"},
			[]string{
				"", ".", "0.0.0.0", "::", "128.0.0.1", "192.168.1.5", "example.com", "localhost.example.com", "localhost..",
				"127.0.0.1.", "127.1", "0x7f.0.0.1", "2130706433", "127.0.0.01", "::1%lo", "[::1]", "127.0.0.1:80", " 127.0.0.1",
				"::ffff:10.0.0.1", "::127.0.0.1",
			},
		},
		"names stand for themselves": {
			[]string{"Game.LAN", "my_container"},
			[]string{"game.lan", "GAME.lan.", "my_container", "127.0.0.1"},
			[]string{"lan", "x.game.lan", "game.lan.evil", "game.lan%eth0", "192.168.1.5"},
		},
		"addresses": {
			[]string{"192.168.1.5", "::ffff:10.0.0.9", "2001:DB8::1", "fe80::1%eth0"},
			[]string{"192.168.1.5", "::ffff:192.168.1.5", "10.0.0.9", "2001:db8:0::1", "fe80::1%eth0"},
			[]string{"192.168.1.6", "fe80::1", "fe80::1%eth1", "2001:db8::2"},
		},
		"prefixes": {
			[]string{"10.1.2.3/16", "::ffff:172.16.0.0/108", "fd00::/8"},
			[]string{"10.1.255.255", "::ffff:10.1.0.0", "172.31.0.1", "fd12::1"},
			[]string{"10.2.0.0", "172.32.0.0", "fd12::1%eth0", "fe80::1"},
		},
		"everything": {
			[]string{"0.0.0.0/0"},
			[]string{"8.8.8.8", "0.0.0.0"},
			[]string{"::", "2001:db8::1", "example.com"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := ParseAllowList(c.entries)
			if err != nil {
				t.Fatal(err)
			}
			for _, host := range c.allowed {
				if err := list.Check(host); err != nil {
					t.Errorf("%q: %v", host, err)
				}
			}
			for _, host := range c.refused {
				var refused *NotAllowedError
				if err := list.Check(host); !errors.As(err, &refused) || refused.Host != host {
					t.Errorf("%q: %v", host, err)
				}
			}
		})
	}
}

func TestAllowList_ZeroValuePermitsNothing(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost", ""} {
		if (&AllowList{}).Check(host) == nil {
			t.Errorf("%q is permitted", host)
		}
	}
}

func TestParseAllowList_RefusesWhatIsNoHost(t *testing.T) {
	for _, entry := range []string{"", "*", "*.lan", "game:25565", "[::1]", "http://game", "127.1", "10.0.0.0/33", "a b", "-x", "x-", "a..b", ".", "1"} {
		if _, err := ParseAllowList([]string{entry}); err == nil {
			t.Errorf("%q is taken", entry)
		}
	}
}
