package netaddr_test

import (
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

func TestCheckHost_AcceptsOneHostAlone(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a"
	for host, want := range map[string]struct{ local, public string }{
		"127.0.0.1":         {},
		"::1":               {},
		"2001:db8::7":       {},
		"::ffff:192.0.2.7":  {},
		"localhost":         {},
		"play.example.com":  {},
		"play.example.com.": {},
		"my_service":        {},
		"xn--bcher-kva.de":  {},
		"3com.example":      {},
		long:                {},
		"fe80::1%eth0":      {public: "zone"},
		"0.0.0.0":           {public: "connect"},
		"::":                {public: "connect"},
		"ff02::1":           {public: "connect"},
		"224.0.0.1":         {public: "connect"},
		"255.255.255.255":   {public: "connect"},
		"::ffff:0.0.0.0":    {public: "connect"},
		"::ffff:224.0.0.1":  {public: "connect"},

		"127.0.0.1:25565":        {"localPort", "without a port"},
		"localhost:25565":        {"localPort", "without a port"},
		"[::1]:25565":            {"localPort", "without a port"},
		"localhost:":             {"localPort", "without a port"},
		"[::1]":                  {"brackets", "brackets"},
		"tcp://127.0.0.1":        {"URL", "URL"},
		"http://play.test:1/x":   {"URL", "URL"},
		"play.test/x":            {"URL", "URL"},
		"me@play.test":           {"URL", "URL"},
		"...":                    {"host name", "host name"},
		".":                      {"host name", "host name"},
		"":                       {"host name", "host name"},
		"a..b":                   {"host name", "host name"},
		"-a.test":                {"host name", "host name"},
		"a-.test":                {"host name", "host name"},
		" a":                     {"host name", "host name"},
		"a b":                    {"host name", "host name"},
		"a\nb":                   {"host name", "host name"},
		"fe80::1%a\x1b[2J":       {"host name", "host name"},
		"bücher.test":            {"host name", "host name"},
		"::1::":                  {"host name", "host name"},
		strings.Repeat("a", 64):  {"host name", "host name"},
		long + "a.b":             {"253", "253"},
		"127.0.0.300":            {"IPv4", "IPv4"},
		"127.1":                  {"IPv4", "IPv4"},
		"25565":                  {"IPv4", "IPv4"},
		"play.example.com.25565": {"IPv4", "IPv4"},
	} {
		if err := netaddr.CheckLocalHost(host); !says(err, want.local) {
			t.Errorf("local host %q: %v, want %q", host, err, want.local)
		}
		if err := netaddr.CheckPublicHost(host); !says(err, want.public) {
			t.Errorf("public host %q: %v, want %q", host, err, want.public)
		}
	}
}

func says(err error, words string) bool {
	if words == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), words)
}

func TestIsLocalhost(t *testing.T) {
	for name, want := range map[string]bool{
		"localhost": true, "localhost.": true, "LOCALHOST": true, "LocalHost.": true,
		"game.localhost": true, "a.b.LOCALHOST.": true, "my_game.localhost": true, "1.localhost": true,
		"": false, ".": false, ".localhost": false, "a..localhost": false, "localhost..": false, "-.localhost": false,
		"localhost.example.com": false, "notlocalhost": false, "localhost4": false, "127.0.0.1": false, "::1": false,
		"::1%a.localhost": false, "a:1.localhost": false, "[::1].localhost": false, "a b.localhost": false,
	} {
		if got := netaddr.IsLocalhost(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestCanonical(t *testing.T) {
	for _, same := range [][]string{
		{"panel.example.com", "Panel.EXAMPLE.com", "panel.example.com."},
		{"2001:db8::1", "2001:DB8:0::1", "[2001:db8::1]", "2001:db8::1%eth0"},
		{"203.0.113.7", "::ffff:203.0.113.7"},
	} {
		for _, host := range same {
			if got := netaddr.Canonical(host); got != same[0] {
				t.Errorf("%q is %q, want %q", host, got, same[0])
			}
		}
	}
}

func TestIsPublicName(t *testing.T) {
	for host, want := range map[string]struct{ public, loopback bool }{
		"panel.example.com": {true, false},
		"panel":             {true, false},
		"203.0.113.7":       {false, false},
		"2001:db8::1":       {false, false},
		"":                  {false, false},
		"localhost":         {false, true},
		"panel.localhost.":  {false, true},
		"127.0.0.2":         {false, true},
		"[::1]":             {false, true},
		"::ffff:127.0.0.1":  {false, true},
	} {
		if public, loopback := netaddr.IsPublicName(host), netaddr.IsLoopbackHost(host); public != want.public || loopback != want.loopback {
			t.Errorf("%q: %v, %v", host, public, loopback)
		}
	}
}
