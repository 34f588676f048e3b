//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// world is how the programs of a fleet are placed: each on a machine of its own,
// which is a network namespace, around a router, which is this process; or all
// of them on loopback, each with an address of its own, where no network can be
// cut.
type world struct {
	apart  bool
	places []*place
}

// place is one machine of a world.
type place struct {
	*cluster.Place
	name string
	addr netip.Addr
}

// newWorld prepares the network. A world whose places are apart must be made in a
// network namespace that has nothing but lo; everything made here ends with it.
func newWorld(ctx context.Context, apart bool) (*world, error) {
	w := &world{apart: apart}
	if !apart {
		return w, nil
	}
	if err := cluster.Alone(); err != nil {
		return nil, fmt.Errorf("route between the machines: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, err
	}
	if err := cluster.Feed(ctx, "ip", fmt.Sprintf("link set lo up\naddr add %s/32 dev lo\n", w.addr(0)), "-batch", "-"); err != nil {
		return nil, err
	}
	return w, cluster.Feed(ctx, "nft", `table ip soak {
		set cut { type ipv4_addr . ipv4_addr; }
		chain input { type filter hook input priority 0; ip saddr . ip daddr @cut drop; }
		chain forward { type filter hook forward priority 0; ip saddr . ip daddr @cut drop; }
		chain output { type filter hook output priority 0; ip saddr . ip daddr @cut drop; }
	}`, "-f", "-")
}

// addr is the address of the n-th place; that of the router is 0.
func (w *world) addr(n int) netip.Addr {
	first := byte(127) // Loopback has many addresses.
	if w.apart {
		first = 10
	}
	return netip.AddrFrom4([4]byte{first, 77, byte(n), 2})
}

// router is where the test itself is: players and the load balancer.
func (w *world) router() netip.Addr { return w.addr(0) }

// add makes another machine.
func (w *world) add(ctx context.Context, name string) (*place, error) {
	n := len(w.places) + 1
	p := &place{Place: new(cluster.Place), name: name, addr: w.addr(n)}
	if w.apart {
		var err error
		if p.Place, err = cluster.NewPlace(ctx); err != nil {
			return nil, fmt.Errorf("a machine for %s: %w", name, err)
		}
	}
	w.places = append(w.places, p)
	if !w.apart {
		return p, nil
	}
	return p, p.Cable(ctx, fmt.Sprintf("up%d", n), netip.AddrFrom4([4]byte{10, 77, byte(n), 1}), p.addr)
}

// cut drops everything between two addresses, both ways, from now on: neither
// end is notified. heal ends that.
func (w *world) cut(a, b netip.Addr) error {
	return cluster.Feed(context.Background(), "nft", fmt.Sprintf("add element ip soak cut { %s . %s, %s . %s }", a, b, b, a), "-f", "-")
}

func (w *world) heal(a, b netip.Addr) error {
	return cluster.Feed(context.Background(), "nft", fmt.Sprintf("delete element ip soak cut { %s . %s, %s . %s }", a, b, b, a), "-f", "-")
}

func (w *world) close() error {
	var errs []error
	for _, p := range w.places {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// inside is the address of the place that only it reaches itself at.
func (p *place) inside() string {
	if p.Apart() {
		return "127.0.0.1"
	}
	return p.addr.String()
}

// on is a port of the place, as others reach it.
func (p *place) on(port uint16) string { return netip.AddrPortFrom(p.addr, port).String() }
