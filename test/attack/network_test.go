//go:build linux

package attack

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// The addresses of the tunnel server, of players, and of attackers. None is of the
// loopback's network: agents are there, and players beside an agent are suspected to be
// a tunnel that leads to itself.
const (
	server4   = "192.0.2.1"
	player4   = "203.0.113.7"
	attacker4 = "198.51.100.0/24"
	// mute4 are addresses that take no answer: packets to them are dropped.
	mute4 = "198.18.0.0/16"
	// forged4 are addresses of nobody.
	forged4 = "10.0.0.0/8"
	// network48 is what one attacker has of IPv6.
	network48 = "2001:db8:a77a::/48"
)

// prepareNetwork gives the network namespace all of these addresses, and a way to connect
// without ever completing a handshake.
func prepareNetwork() error {
	ctx := context.Background()
	setup := "link set lo up\naddr add " + player4 + "/32 dev lo\n" +
		"route add local " + server4 + " dev lo src " + player4 + " table local\n" +
		"route add local " + network48 + " dev lo\n"
	for _, network := range []string{attacker4, mute4, forged4} {
		setup += "route add local " + network + " dev lo\n"
	}
	if err := cluster.Feed(ctx, "ip", setup, "-batch", "-"); err != nil {
		return err
	}
	return cluster.Feed(ctx, "nft", `table ip mute {
		chain output {
			type filter hook output priority 0;
			ip daddr `+mute4+` tcp flags & (syn|ack) == syn|ack drop
		}
	}
`, "-f", "-")
}

func needsNetwork(t *testing.T) {
	t.Helper()
	if os.Getenv(apart) != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this takes a network namespace: %v", cluster.CanPlace())
	}
	t.Skip("this takes a network namespace of its own, which takes root")
}

// attacker is the n-th address of attackers who have few.
func attacker(n int) netip.Addr { return nth(attacker4, 1+n%250) }

// mute is the n-th address that takes no answer, and forged the n-th of nobody.
func mute(n int) netip.Addr   { return nth(mute4, n) }
func forged(n int) netip.Addr { return nth(forged4, n*257) }

// nth is the n-th address of a network of IPv4.
func nth(network string, n int) netip.Addr {
	prefix := netip.MustParsePrefix(network)
	a := prefix.Addr().As4()
	size := uint32(1) << (32 - prefix.Bits())
	first := binary.BigEndian.Uint32(a[:])
	binary.BigEndian.PutUint32(a[:], first+uint32(n)%size)
	return netip.AddrFrom4(a)
}

// of48 is the n-th address of network48: each is in a /64 of its own.
func of48(n int) netip.Addr {
	a := netip.MustParsePrefix(network48).Addr().As16()
	a[6], a[7], a[15] = byte(n>>8), byte(n), 1
	return netip.AddrFrom16(a)
}

// dialerFrom returns a dialer with a source address, whose port the kernel chooses when
// it connects: many connections of one address do not run out of ports that others have.
func dialerFrom(from netip.Addr) *net.Dialer {
	return &net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); failed != nil {
				return
			}
			if from.Is4() {
				failed = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: from.As4()})
				return
			}
			// An address that is the machine's by a route alone takes this to bind to.
			if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); failed == nil {
				failed = unix.Bind(int(fd), &unix.SockaddrInet6{Addr: from.As16()})
			}
		})
		if err != nil {
			return err
		}
		return failed
	}}
}
