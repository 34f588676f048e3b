//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/cluster"
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
	name  string
	addr  netip.Addr
	space *os.File // Its network namespace; nil is ours.
}

// errNotAlone is returned by newWorld where the network is not this process's own.
var errNotAlone = errors.New("this network namespace has interfaces beside lo: the soak routes only in one of its own")

// newWorld prepares the network. A world whose places are apart wants to be called in a
// network namespace that has nothing but lo, which ends with the process and
// takes everything made here with it.
func newWorld(ctx context.Context, apart bool) (*world, error) {
	w := &world{apart: apart}
	if !apart {
		return w, nil
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	if len(interfaces) != 1 || interfaces[0].Flags&net.FlagLoopback == 0 {
		return nil, errNotAlone
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, err
	}
	if err := feed(ctx, "ip", fmt.Sprintf("link set lo up\naddr add %s/32 dev lo\n", w.addr(0)), "-batch", "-"); err != nil {
		return nil, err
	}
	return w, feed(ctx, "nft", `table ip soak {
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
	p := &place{name: name, addr: w.addr(n)}
	w.places = append(w.places, p)
	if !w.apart {
		return p, nil
	}
	var err error
	if p.space, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("a network namespace for %s: %w", name, err)
	}
	gateway := netip.AddrFrom4([4]byte{10, 77, byte(n), 1})
	outside := fmt.Sprintf("link add up%d type veth peer name eth0 netns /proc/%d/fd/%d\naddr add %s/24 dev up%d\nlink set up%d up\n",
		n, os.Getpid(), p.space.Fd(), gateway, n, n)
	if err := feed(ctx, "ip", outside, "-batch", "-"); err != nil {
		return nil, err
	}
	inside := fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\nroute add default via %s\n", p.addr, gateway)
	return p, p.do(func() error { return feed(ctx, "ip", inside, "-batch", "-") })
}

// cut drops everything between two addresses, both ways, from now on: neither
// end is told. heal ends that.
func (w *world) cut(a, b netip.Addr) error {
	return feed(context.Background(), "nft", fmt.Sprintf("add element ip soak cut { %s . %s, %s . %s }", a, b, b, a), "-f", "-")
}

func (w *world) heal(a, b netip.Addr) error {
	return feed(context.Background(), "nft", fmt.Sprintf("delete element ip soak cut { %s . %s, %s . %s }", a, b, b, a), "-f", "-")
}

func (w *world) close() error {
	var errs []error
	for _, p := range w.places {
		if p.space != nil {
			errs = append(errs, p.space.Close())
		}
	}
	return errors.Join(errs...)
}

// inside is the address of the place that only it reaches itself at.
func (p *place) inside() string {
	if p.space == nil {
		return p.addr.String()
	}
	return "127.0.0.1"
}

// on is a port of the place, as others reach it.
func (p *place) on(port uint16) string { return netip.AddrPortFrom(p.addr, port).String() }

// do calls f on a thread that is in the place: sockets that f opens and
// processes that it starts belong there. Goroutines that f starts do not.
func (p *place) do(f func() error) error {
	if p.space == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nothing else ever
		// runs on one that is somewhere else.
		runtime.LockOSThread()
		if err := unix.Setns(int(p.space.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace of %s: %w", p.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// start is a cluster.Starter of the place.
func (p *place) start(name string, cmd *exec.Cmd, log io.Writer) (process *cluster.Process, err error) {
	err = p.do(func() error {
		process, err = cluster.StartProcess(name, cmd, log)
		return err
	})
	return process, err
}

// newNamespace makes a network namespace that lives as long as the file is open
// or somebody is in it.
func newNamespace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // As in do.
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		made <- result{file, err}
	}()
	r := <-made
	return r.file, r.err
}

// needed says what keeps networks from being cut here, nil if nothing does.
func needed() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces take root")
	}
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program(name)); err != nil {
			return fmt.Errorf("%s is not installed; make setup installs it", name)
		}
	}
	// A container's root may not make any.
	space, err := newNamespace()
	if err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	return space.Close()
}

// program finds what Debian keeps out of an unprivileged user's path.
func program(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return "/usr/sbin/" + name
	}
	return name
}

// feed runs a program with something to read.
func feed(ctx context.Context, name, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &complaint, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, complaint.String())
	}
	return nil
}
