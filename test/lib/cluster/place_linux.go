package cluster

import (
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
)

// Place is a machine: a network namespace. The zero value is where this process
// is.
type Place struct {
	space *os.File // nil is where we are.
}

// PlaceDevice is the place's own end of its cable; see Place.Cable.
const PlaceDevice = "eth0"

// NewPlace makes a machine with nothing but its loopback, which is up. It lives
// until it is closed and no process is in it.
func NewPlace(ctx context.Context) (*Place, error) {
	space, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	p := &Place{space: space}
	if err := p.Do(func() error { return Feed(ctx, "ip", "link set lo up\n", "-batch", "-") }); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close leaves the machine.
func (p *Place) Close() error {
	if p.space == nil {
		return nil
	}
	return p.space.Close()
}

// Apart says whether the machine is another than this process's.
func (p *Place) Apart() bool { return p.space != nil }

// Enter is what comes before a command line of a shell to run it in the place,
// while this process runs; "" here.
func (p *Place) Enter() string {
	if p.space == nil {
		return ""
	}
	return fmt.Sprintf("nsenter --net=/proc/%d/fd/%d", os.Getpid(), p.space.Fd())
}

// Cable lays a cable from here, where its end is a device of that name with the
// address near, to the place, whose end is PlaceDevice with the address far. Both
// are in one network of 256 addresses, and the place reaches everything else
// through near.
func (p *Place) Cable(ctx context.Context, device string, near, far netip.Addr) error {
	outside := fmt.Sprintf("link add %s type veth peer name %s netns /proc/%d/fd/%d\naddr add %s/24 dev %[1]s\nlink set %[1]s up\n",
		device, PlaceDevice, os.Getpid(), p.space.Fd(), near)
	if err := Feed(ctx, "ip", outside, "-batch", "-"); err != nil {
		return err
	}
	inside := fmt.Sprintf("addr add %s/24 dev %s\nlink set %[2]s up\nroute add default via %s\n", far, PlaceDevice, near)
	return p.Do(func() error { return Feed(ctx, "ip", inside, "-batch", "-") })
}

// Do calls f on a thread that is in the place: sockets that f opens and
// processes that it starts belong there. Goroutines that f starts do not.
func (p *Place) Do(f func() error) error {
	if p.space == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nothing else ever
		// runs on one that is somewhere else.
		runtime.LockOSThread()
		if err := unix.Setns(int(p.space.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Start is a Starter of the place.
func (p *Place) Start(name string, cmd *exec.Cmd, log io.Writer) (process *Process, err error) {
	err = p.Do(func() error {
		process, err = StartProcess(name, cmd, log)
		return err
	})
	return process, err
}

// newNamespace makes a network namespace that lives as long as the file is open
// or a process is in it.
func newNamespace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // As in Do.
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

// CanPlace says what keeps places from being made here, and what passes between
// them from being dropped; nil if nothing does.
func CanPlace() error {
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

// ErrNotAlone is returned by Alone.
var ErrNotAlone = errors.New("this network namespace has interfaces beside lo")

// Alone is nil in a network namespace that has nothing but lo: one that was made
// for this process, whose network it may change.
func Alone() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	if len(interfaces) != 1 || interfaces[0].Flags&net.FlagLoopback == 0 {
		return ErrNotAlone
	}
	return nil
}

// program finds what Debian keeps out of an unprivileged user's path.
func program(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return "/usr/sbin/" + name
	}
	return name
}

// Feed runs a program with something to read.
func Feed(ctx context.Context, name, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, program(name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, stdin)
	}
	return nil
}
