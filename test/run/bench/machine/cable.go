//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// The cable between the public side, which is here, and home.
const publicDevice = "public0"

var (
	publicSide = netip.AddrFrom4([4]byte{10, 79, 0, 1})
	homeSide   = netip.AddrFrom4([4]byte{10, 79, 0, 2})
)

// Cable is the link between the two ends of a tunnel, which loses packets on
// demand: between two network namespaces, or on the loopback of this one.
type Cable struct {
	// Home is where the end at the game is.
	Home *cluster.Place
	// Public and HomeHost are the addresses of the two ends.
	Public, HomeHost string

	// device is on whose arrivals packets are lost, in each namespace.
	here, there string
}

// NewCable makes a home and lays a cable to it. The calling process's network
// namespace must have no interface but loopback.
func NewCable(ctx context.Context) (*Cable, error) {
	if err := cluster.Alone(); err != nil {
		return nil, fmt.Errorf("lay a cable: %w", err)
	}
	if err := command(ctx, "ip link set lo up"); err != nil {
		return nil, err
	}
	home, err := cluster.NewPlace(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cable{Home: home, Public: publicSide.String(), HomeHost: homeSide.String(), here: publicDevice, there: cluster.PlaceDevice}
	err = errors.Join(
		home.Cable(ctx, publicDevice, publicSide, homeSide),
		// What the kernel joins to one packet is lost as one.
		command(ctx, "ip link set "+publicDevice+" gso_max_segs 1"),
		home.Do(func() error { return command(ctx, "ip link set "+cluster.PlaceDevice+" gso_max_segs 1") }),
	)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// LoopbackCable is the loopback of this network namespace, where both ends are.
// The namespace must be one in which nobody else is.
func LoopbackCable() *Cable {
	return &Cable{Home: new(cluster.Place), here: "lo"}
}

// Lose loses so many of a thousand packets to and from these ports, in each
// direction, at random, until it is called again. Packets are lost as they
// arrive: a sender whose own packet filter drops what it sends is told so.
func (c *Cable) Lose(ctx context.Context, ports []Port, perMille int) error {
	err := lose(ctx, c.here, ports, perMille)
	if c.there != "" {
		err = errors.Join(err, c.Home.Do(func() error { return lose(ctx, c.there, ports, perMille) }))
	}
	return err
}

func lose(ctx context.Context, device string, ports []Port, perMille int) error {
	script := "table netdev cable {}\ndelete table netdev cable\n"
	if perMille > 0 {
		var rules strings.Builder
		for _, p := range ports {
			for _, direction := range []Direction{To, From} {
				fmt.Fprintf(&rules, "th %s %d numgen random mod 1000 < %d drop\n", direction, p.Number, perMille)
			}
		}
		script += fmt.Sprintf("table netdev cable {\nchain arriving { type filter hook ingress device %s priority 0;\n%s}\n}\n", device, &rules)
	}
	return cluster.Feed(ctx, "nft", script, "-f", "-")
}

// Close loses no more packets and leaves home.
func (c *Cable) Close() error {
	return errors.Join(c.Lose(context.Background(), nil, 0), c.Home.Close())
}
