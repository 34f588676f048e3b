//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// A home's uplink.
const (
	uplinkRate = "100mbit"
	// uplinkQueue is how many bytes wait in the modem, first in, first out.
	uplinkQueue = 256 << 10
	// uplinkMTU is the size of its packets. Loopback's are larger, and the kernel
	// joins some to one, of which a queue as short holds four.
	uplinkMTU = 1500
)

// port is packets to or from a TCP or UDP port.
type port struct {
	direction string
	number    int
}

// The directions: to the port, from the port.
const (
	toPort   = "dport"
	fromPort = "sport"
)

// The uplink is a slow link from a home to the rest of the world, within a network
// namespace of its own. What passes it arrives on loopback like
// everything else and is sent on a detour there, to an intermediate functional
// block (ifb) with the queue. The sender's kernel has let go of a packet by
// then, so it neither sees the queue nor keeps it short (TCP small queues do, where
// the queue is the sender's own): the queue is a modem's.
//
// openUplink prepares the calling process's network namespace, which must have
// no interface but loopback, until closeUplink. It returns the congestion control
// of sockets that choose none.
func openUplink(ctx context.Context) (congestion string, err error) {
	if err := cluster.Alone(); err != nil {
		return "", fmt.Errorf("shape an uplink: %w", err)
	}
	if congestion, err = lossBased(); err != nil {
		return "", err
	}
	err = commands(ctx,
		fmt.Sprintf("ip link set lo mtu %d gso_max_segs 1 up", uplinkMTU),
		"ip link add ifb0 type ifb",
		"ip link set ifb0 up",
		"tc qdisc add dev ifb0 root handle 1: htb default 1",
		fmt.Sprintf("tc class add dev ifb0 parent 1: classid 1:1 htb rate %s quantum %d", uplinkRate, 2*uplinkMTU),
	)
	if err != nil {
		return "", errors.Join(err, closeUplink())
	}
	return congestion, nil
}

// lossBased makes a congestion control that knows losses alone the default, as
// nearly every home's is, whatever this machine's is. Cubic may be used in a
// namespace only where the machine allows it to all users.
func lossBased() (string, error) {
	const setting = "/proc/sys/net/ipv4/tcp_congestion_control"
	if os.WriteFile(setting, []byte("cubic"), 0) == nil {
		return "cubic", nil
	}
	return "reno", os.WriteFile(setting, []byte("reno"), 0)
}

// shapeUplink has the packets of these ports, and no others, pass the uplink, whose
// queue is empty again.
func shapeUplink(ctx context.Context, ports []port) error {
	lines := []string{
		"tc qdisc replace dev ifb0 parent 1:1 pfifo",
		fmt.Sprintf("tc qdisc replace dev ifb0 parent 1:1 bfifo limit %d", uplinkQueue),
		"nft add table netdev home",
		"nft delete table netdev home",
		"nft add table netdev home",
		"nft add chain netdev home up { type filter hook ingress device lo priority 0; }",
	}
	for _, p := range ports {
		lines = append(lines, fmt.Sprintf("nft add rule netdev home up th %s %d fwd to ifb0", p.direction, p.number))
	}
	return commands(ctx, lines...)
}

// closeUplink makes the namespace's network what it was, but for the loopback's MTU.
func closeUplink() error {
	//nolint:errcheck // it fails where nothing was shaped
	commands(context.Background(), "nft delete table netdev home")
	return commands(context.Background(), "ip link del ifb0")
}

// commands runs command lines whose words have no spaces.
func commands(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if err := cluster.Feed(ctx, words[0], "", words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// The cable between the public side, which is here, and home.
const publicDevice = "public0"

var (
	publicSide = netip.AddrFrom4([4]byte{10, 79, 0, 1})
	homeSide   = netip.AddrFrom4([4]byte{10, 79, 0, 2})
)

// cable is the link between the two ends of a tunnel, which loses packets on
// demand: between two network namespaces, or on the loopback of this one, which
// must be used by nothing else.
type cable struct {
	// home is where the end at the game is.
	home *cluster.Place
	// public and homeHost are the addresses of the two ends.
	public, homeHost string
	// here and there are the devices on whose arrivals packets are lost.
	here, there string
}

func loopbackCable() *cable {
	return &cable{home: new(cluster.Place), public: "127.0.0.1", homeHost: "127.0.0.1", here: "lo"}
}

// newCable makes a home and lays a cable to it. The calling process's network
// namespace must have no interface but loopback.
func newCable(ctx context.Context) (*cable, error) {
	if err := cluster.Alone(); err != nil {
		return nil, fmt.Errorf("lay a cable: %w", err)
	}
	if err := commands(ctx, "ip link set lo up"); err != nil {
		return nil, err
	}
	home, err := cluster.NewPlace(ctx)
	if err != nil {
		return nil, err
	}
	c := &cable{home: home, public: publicSide.String(), homeHost: homeSide.String(), here: publicDevice, there: cluster.PlaceDevice}
	err = errors.Join(
		home.Cable(ctx, publicDevice, publicSide, homeSide),
		// What the kernel joins to one packet is lost as one.
		commands(ctx, "ip link set "+publicDevice+" gso_max_segs 1"),
		home.Do(func() error { return commands(ctx, "ip link set "+cluster.PlaceDevice+" gso_max_segs 1") }),
	)
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// lose drops so many of a thousand packets to and from these ports, in each
// direction, at random, until it is called again. Packets are dropped as they
// arrive: a sender whose own packet filter drops what it sends gets an error.
func (c *cable) lose(ctx context.Context, ports []port, perMille int) error {
	drop := func(device string) error {
		script := "table netdev cable {}\ndelete table netdev cable\n"
		if perMille > 0 {
			script += fmt.Sprintf("table netdev cable {\nchain arriving { type filter hook ingress device %s priority 0;\n", device)
			for _, p := range ports {
				for _, direction := range []string{toPort, fromPort} {
					script += fmt.Sprintf("th %s %d numgen random mod 1000 < %d drop\n", direction, p.number, perMille)
				}
			}
			script += "}\n}\n"
		}
		return cluster.Feed(ctx, "nft", script, "-f", "-")
	}
	err := drop(c.here)
	if c.there != "" {
		err = errors.Join(err, c.home.Do(func() error { return drop(c.there) }))
	}
	return err
}

// close drops no more packets and leaves home.
func (c *cable) close() error {
	return errors.Join(c.lose(context.Background(), nil, 0), c.home.Close())
}
