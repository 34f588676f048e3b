package target

import (
	"errors"
	"net"
	"strconv"
	"strings"
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
			[]string{"localhost", "LocalHost", "localhost.", "game.localhost", "127.0.0.1", "127.8.8.8", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"},
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
			list, err := ParseAllowList(c.entries, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, host := range c.allowed {
				if err := list.Check(host, 25565); err != nil {
					t.Errorf("%q: %v", host, err)
				}
			}
			for _, host := range c.refused {
				var refused *NotAllowedError
				if err := list.Check(host, 25565); !errors.As(err, &refused) || refused.Host != host {
					t.Errorf("%q: %v", host, err)
				}
			}
		})
	}
}

func TestAllowList_ZeroValuePermitsNothing(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost", "game.localhost", "::", ""} {
		if (&AllowList{}).Check(host, 25565) == nil {
			t.Errorf("%q is permitted", host)
		}
	}
}

func TestAllowList_ChecksPorts(t *testing.T) {
	for name, c := range map[string]struct {
		entries, ownPorts []string
		allowed, refused  []string
	}{
		"of an address": {
			[]string{"192.0.2.10:25565", "192.0.2.10:2456-2458", "[2001:db8::5]:25565", "[fe80::1%eth0]:1"}, nil,
			[]string{
				"192.0.2.10:25565", "192.0.2.10:2456", "192.0.2.10:2457", "192.0.2.10:2458", "[::ffff:192.0.2.10]:25565",
				"[2001:db8::5]:25565", "[2001:DB8:0::5]:25565", "[fe80::1%eth0]:1", "127.0.0.1:22",
			},
			[]string{"192.0.2.10:22", "192.0.2.10:2455", "192.0.2.10:2459", "192.0.2.11:25565", "[2001:db8::5]:25566", "[fe80::1%eth0]:2"},
		},
		"of a name": {
			[]string{"Game.LAN.:2456-2458", "my_game:1", "my_game:65535"}, nil,
			[]string{"game.lan:2456", "GAME.lan.:2458", "my_game:1", "my_game:65535"},
			[]string{"game.lan:25565", "my_game:2", "x.game.lan:2456"},
		},
		"of a prefix": {
			[]string{"192.0.2.0/24:25565", "fd00::/8:25565", "[fd00::]/8:25566", "[fd00::/8]:25567", "192.0.2.128/25:22"}, nil,
			[]string{"192.0.2.1:25565", "192.0.2.200:25565", "192.0.2.200:22", "[fd12::1]:25565", "[fd12::1]:25566", "[fd12::1]:25567"},
			[]string{"192.0.2.1:22", "192.0.3.1:25565", "[fd12::1]:25568", "[fe80::1]:25565"},
		},
		"all in addition to one": {
			[]string{"192.0.2.10:25565", "192.0.2.10", "game.lan:1", "game.lan"}, nil,
			[]string{"192.0.2.10:22", "game.lan:22"}, nil,
		},
		"of this machine": {
			nil, []string{"25565", " 19132", "2456-2458"},
			[]string{"127.0.0.1:25565", "127.9.9.9:19132", "[::1]:2457", "localhost:25565", "LOCALHOST.:25565", "game.localhost:2458", "[::ffff:127.0.0.1]:25565"},
			[]string{
				"127.0.0.1:22", "127.9.9.9:2459", "[::1]:22", "localhost:22", "LOCALHOST.:22", "game.localhost:22",
				"[::ffff:127.0.0.1]:22", "192.0.2.1:25565",
			},
		},
		"of this machine, whatever else is listed": {
			[]string{"0.0.0.0/0", "::/0", "localhost", "127.0.0.1", "::1%lo", "game.lan:22"}, []string{"25565"},
			[]string{"127.0.0.1:25565", "0.0.0.0:25565", "[::]:25565", "192.0.2.1:22", "game.lan:22"},
			[]string{"127.0.0.1:22", "localhost:22", "0.0.0.0:22", "[::]:22", "[::1%lo]:22", "game.lan:25565"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := ParseAllowList(c.entries, c.ownPorts)
			if err != nil {
				t.Fatal(err)
			}
			check := func(target string) error {
				host, text, _ := net.SplitHostPort(target)
				port, _ := strconv.Atoi(text)
				return list.Check(host, port)
			}
			for _, target := range c.allowed {
				if err := check(target); err != nil {
					t.Errorf("%q: %v", target, err)
				}
			}
			for _, target := range c.refused {
				var refused *NotAllowedError
				if err := check(target); !errors.As(err, &refused) || net.JoinHostPort(refused.Host, strconv.Itoa(refused.Port)) != target {
					t.Errorf("%q: %v", target, err)
				}
			}
		})
	}
}

func TestParseAllowList_RefusesWhatIsNoHost(t *testing.T) {
	for _, entry := range []string{
		"", "*", "*.lan", "[::1]", "http://game", "127.1", "10.0.0.0/33", "a b", "-x", "x-", "a..b", ".", "1",
		"game:", "game:0", "game:65536", "game:+1", "game:2458-2456", "game:1-", "game:-1", "game:1-2-3", "game:x", "*:25565", "127.1:25565",
		"10.0.0.0/33:1", "10.0.0.0/24:", "10.0.0.0:1/24", "[fd00::5]", "[fd00::5]25565", "[fd00::5]:", "[game]:1", "[10.0.0.1]:1", "fd00::5:25565",
		":25565", "25565", "2456-2458", "localhost:25565", "game.localhost:1", "127.0.0.1:25565", "[::1]:25565", "127.0.0.0/8:22",
	} {
		_, err := ParseAllowList([]string{"192.0.2.1", entry}, nil)
		if err == nil || !strings.Contains(err.Error(), strconv.Quote(entry)) {
			t.Errorf("%q: %v", entry, err)
		}
	}
	for entry, words := range map[string]string{
		"25565": "--allow-ports 25565", "2456-2458": "HOST:2456-2458", "localhost:25565": "--allow-ports 25565",
		"[::1]:2456-2458": "--allow-ports 2456-2458", "fd00::5:25565": "[fd00::5]:2456-2458", "game:70000": `"70000"`,
	} {
		if _, err := ParseAllowList([]string{entry}, nil); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", entry, err)
		}
	}
	for _, ports := range []string{"", "0", "65536", "x", "2-1", "1-", "-1", "127.0.0.1:25565", "25565;1"} {
		if _, err := ParseAllowList(nil, []string{"1", ports}); err == nil || !strings.Contains(err.Error(), strconv.Quote(ports)) {
			t.Errorf("ports %q: %v", ports, err)
		}
	}
}
