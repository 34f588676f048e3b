//go:build linux

// Soak runs a whole fleet, the built binaries, and breaks it: three panels on
// one Postgres behind a load balancer, two tunnel servers, twenty agents with
// their games, and players on every port. It kills each process in turn,
// Postgres included, cuts networks, and revokes devices. Meanwhile every byte is
// verified and every promise of docs/architecture.md held; how long what was
// broken took to be back is measured from when its cause was gone. At the end the
// usage of every port must be what its players have counted: see docs/usage.md.
//
// As root every program has a network namespace of its own, and networks are cut
// with nftables; otherwise all are on loopback, and no network is cut.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

// fleetRole is the soak itself, in a network namespace that has nothing but lo.
const fleetRole = "fleet"

func main() {
	role.Main("soak", roles)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	role.Exit("soak", run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	r, err := everywhere(ctx, o, progress)
	if err != nil {
		return err
	}
	return errors.Join(r.write(out), r.verdict())
}

// verdict is the soak's outcome as an error.
func (r report) verdict() error {
	var errs []error
	if r.Failed != "" {
		errs = append(errs, errors.New(r.Failed))
	}
	if n := len(r.Breaches); n > 0 {
		errs = append(errs, fmt.Errorf("promises were broken %d times", n))
	}
	return errors.Join(errs...)
}

// everywhere runs the soak where networks can be cut, or here.
func everywhere(ctx context.Context, o options, progress io.Writer) (report, error) {
	if !o.Apart {
		fmt.Fprintf(progress, "no network is cut: %s\n", o.NotApart)
		return soak(ctx, o, progress), nil
	}
	var r report
	process, err := role.Start(ctx, fleetRole, o, &r, true)
	if err != nil {
		return report{}, err
	}
	return r, process.Stop()
}

var roles = map[string]role.Role{fleetRole: role.Of(func(ctx context.Context, o options) (report, func() error, error) {
	return soak(ctx, o, os.Stderr), func() error { return nil }, nil
})}

func parse(args []string, usage io.Writer) (options, error) {
	o := options{}
	set := flag.NewFlagSet("soak", flag.ContinueOnError)
	set.SetOutput(usage)
	set.StringVar(&o.Bin, "bin", "bin", "`directory` of eclitunneld and eclitunnel")
	set.IntVar(&o.Agents, "agents", 20, "how many agents there are, each with a TCP and a UDP port")
	set.DurationVar(&o.Duration, "duration", 0, "repeat the faults in random order for this `time`; 0: each once")
	set.Uint64Var(&o.Seed, "seed", rand.Uint64(), "of the order of the faults and of whom they strike (default random)")
	set.DurationVar(&o.Goal, "goal", 5*time.Second, "`time` in which everything must be back; after a tunnel server's death 70 % of it, 40 % in the median, and after a blackout 60 %")
	set.StringVar(&o.Only, "only", "", "the one `fault` to repeat, by its name in the table")
	set.StringVar(&o.Logs, "logs", "", "existing `directory` in which to keep what the programs print")
	set.StringVar(&o.LogLevel, "log-level", "info", "`level` of the log of agents and tunnel servers")
	here := set.Bool("loopback", false, "run everything on loopback and cut no network, as without root")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	switch {
	case set.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", set.Arg(0))
	case o.Agents < 1 || o.Agents > 200 || o.Duration < 0 || o.Goal <= 0:
		return options{}, errors.New("--agents is 1 to 200, --goal positive, --duration not negative")
	}
	o.place(*here)
	return o, nil
}

// place decides where the programs run.
func (o *options) place(here bool) {
	if here {
		o.NotApart = "--loopback"
		return
	}
	if err := cluster.CanPlace(); err != nil {
		o.NotApart = err.Error()
		return
	}
	o.Apart = true
}
