package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// machine is one whose addresses change.
type machine struct{ addrs atomic.Pointer[[]net.Addr] }

func (m *machine) set(addrs []net.Addr) { m.addrs.Store(&addrs) }

// allowList returns the machine's allow-list.
func (m *machine) allowList(t *testing.T) *AllowList {
	t.Helper()
	list, err := ParseAllowList(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list.own.interfaces = func() ([]net.Addr, error) { return *m.addrs.Load(), nil }
	return list
}

func networks(t *testing.T, prefixes ...string) []net.Addr {
	t.Helper()
	var addrs []net.Addr
	for _, prefix := range prefixes {
		ip, network, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	return addrs
}

func TestAllowList_HasTheMachinesOwnAddressesAsTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs := networks(t, "127.0.0.1/8", "192.168.1.5/24", "10.8.0.2/32", "2001:db8::5/64", "fe80::5/64")
		m := new(machine)
		m.set(append(addrs, &net.IPAddr{IP: net.ParseIP("2001:db8::")})) // Of a group.
		list := m.allowList(t)
		check := func(allowed bool, hosts ...string) {
			t.Helper()
			for _, host := range hosts {
				if err := list.Check(host, 25565); (err == nil) != allowed {
					t.Errorf("%q: %v, allowed is %v", host, err, allowed)
				}
			}
		}
		check(true, "192.168.1.5", "::ffff:192.168.1.5", "10.8.0.2", "2001:db8::5", "2001:DB8:0::5")
		check(false, "192.168.1.6", "192.168.1.0", "192.168.1.255", "10.8.0.1", "2001:db8::6", "2001:db8::",
			"fe80::5", "fe80::5%lo", "fe80::5%eth9", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "192.168.1.5:80", "home")

		ctx, stop := context.WithCancel(t.Context())
		changed := make(chan struct{}, 16)
		go list.Watch(ctx, func() { changed <- struct{}{} })
		synctest.Wait()
		m.set(networks(t, "127.0.0.1/8", "192.168.2.7/24"))
		time.Sleep(ownInterval)
		synctest.Wait()
		if len(changed) != 1 {
			t.Errorf("%d changes are reported", len(changed))
		}
		check(true, "192.168.2.7", "127.0.0.1")
		check(false, "192.168.1.5", "10.8.0.2", "2001:db8::5")
		time.Sleep(10 * ownInterval)
		if len(changed) != 1 {
			t.Errorf("%d changes are reported", len(changed))
		}
		stop()
		synctest.Wait()

		// Without Watch as well.
		m.set(networks(t, "192.168.3.9/24"))
		time.Sleep(ownAge)
		check(true, "192.168.3.9")
		check(false, "192.168.2.7")

		list.own.interfaces = func() ([]net.Addr, error) { return nil, errors.New("no such luck") }
		time.Sleep(ownAge)
		check(true, "127.0.0.1", "localhost", "::1")
		check(false, "192.168.3.9")
	})
}

func TestAllowList_ReadsTheAddressesOnceForManyPlayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		list, err := ParseAllowList(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		addrs := networks(t, "192.168.1.5/24")
		list.own.interfaces = func() ([]net.Addr, error) { reads++; return addrs, nil }
		for range 1000 {
			for _, host := range []string{"192.168.1.5", "192.168.1.6", "127.0.0.1", "localhost"} {
				_ = list.Check(host, 25565)
			}
		}
		if reads != 1 {
			t.Errorf("%d reads", reads)
		}
	})
}

func TestAllowList_HasThisMachinesAddresses(t *testing.T) {
	list, err := ParseAllowList(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		ip := addr.(*net.IPNet).IP
		if ip.To4() == nil && ip.IsLinkLocalUnicast() {
			continue
		}
		if err := list.Check(ip.String(), 25565); err != nil {
			t.Error(err)
		}
	}
}

func TestAllowList_RestrictsTheMachinesOwnAddressesAsTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(machine)
		m.set(networks(t, "127.0.0.1/8", "192.168.1.5/24", "2001:db8::5/64"))
		list, err := ParseAllowList([]string{"192.168.0.0/16", "2001:db8::5", "game.lan"}, []string{"25565"})
		if err != nil {
			t.Fatal(err)
		}
		list.own.interfaces = func() ([]net.Addr, error) { return *m.addrs.Load(), nil }
		check := func(allowed bool, port int, hosts ...string) {
			t.Helper()
			for _, host := range hosts {
				if err := list.Check(host, port); (err == nil) != allowed {
					t.Errorf("%q port %d: %v, allowed is %v", host, port, err, allowed)
				}
				to := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))
				if err := list.CheckAddress(to); (err == nil) != allowed {
					t.Errorf("game.lan at %v: %v, allowed is %v", to, err, allowed)
				}
			}
		}
		check(true, 25565, "192.168.1.5", "2001:db8::5", "127.0.0.1", "::ffff:192.168.1.5")
		check(false, 22, "192.168.1.5", "2001:db8::5", "127.0.0.1", "::ffff:192.168.1.5")
		check(true, 22, "192.168.1.6", "192.168.2.7")
		m.set(networks(t, "127.0.0.1/8", "192.168.2.7/24"))
		time.Sleep(ownAge)
		check(true, 22, "192.168.1.5", "2001:db8::5")
		check(false, 22, "192.168.2.7")
		check(true, 25565, "192.168.2.7")
	})
}

func TestNotAllowedError_SaysWhatToDo(t *testing.T) {
	for host, words := range map[string]string{
		"192.168.1.6": "eclitunnel run --allow 192.168.1.6",
		"game.lan":    "eclitunnel run --allow game.lan",
		"0.0.0.0":     "127.0.0.1",
		"::":          "127.0.0.1",
		"239.1.2.3":   "group",
	} {
		if text := (&NotAllowedError{Host: host}).Error(); !strings.Contains(text, words) || !strings.Contains(text, "allow-list") {
			t.Errorf("%s: %s", host, text)
		}
	}
	for _, c := range []struct {
		entries, ownPorts []string
		host              string
		words             string
	}{
		{nil, nil, "192.0.2.6", "eclitunnel run --allow 192.0.2.6:22"},
		{nil, nil, "game.lan", "eclitunnel run --allow game.lan:22"},
		{nil, nil, "2001:db8::6", "eclitunnel run --allow [2001:db8::6]:22"},
		{[]string{"192.0.2.0/24:25565"}, nil, "192.0.2.6", "in addition: --allow 192.0.2.6:22"},
		{[]string{"game.lan:1", "game.lan:2"}, nil, "GAME.lan", "in addition: --allow GAME.lan:22"},
		{nil, []string{"25565", "2456-2458"}, "127.0.0.1", "eclitunnel run --allow-ports 25565,2456-2458,22"},
		{nil, []string{"25565"}, "localhost", "eclitunnel run --allow-ports 25565,22"},
		{nil, slices.Repeat([]string{"2456-2458"}, 100), "::1", "with this port in --allow-ports"},
	} {
		list, err := ParseAllowList(c.entries, c.ownPorts)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.Check(c.host, 22); err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "allow-list") {
			t.Errorf("%s: %v", c.host, err)
		}
	}
	long := strings.Repeat("a.", 149) + "aa"
	for _, e := range []*NotAllowedError{{Host: long}, {Host: long, Port: 65535}, {Host: long, Port: 65535, listed: true}, {Host: long, Port: 65535, OwnPorts: []string{strings.Repeat("1", maxFlag)}}} {
		if text := e.Error(); len(text) > 500 { // The contract's longest reason.
			t.Errorf("%d characters: %s", len(text), text)
		}
	}
}
