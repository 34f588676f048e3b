//go:build linux

// Bench measures reverse tunnels from the player's side: ours, others, and two plain
// proxies in a row, which are the limit of what any can reach. What it measures, and
// how to read it, is described in docs/benchmarks.md; --help lists its flags.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/role"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

func main() {
	role.Main("bench", roles())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	role.Exit("bench", run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// flags are the command line.
type flags struct {
	options
	jsonFile, from string
	markdown       bool
}

// anyShare leaves no sample out.
const anyShare = 100

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	f, err := parse(args, progress)
	if err != nil {
		return err
	}
	if f.from != "" {
		return f.reprint(out)
	}
	r, err := benchmark(ctx, f.options, progress)
	r.Command = strings.Join(append([]string{"bench"}, args...), " ")
	if len(r.Results) > 0 {
		// An error at the end is no reason to lose what was measured before it.
		err = errors.Join(err, f.write(r, out))
	}
	if slices.ContainsFunc(r.Failures, func(f failure) bool { return f.Fatal }) {
		err = errors.Join(err, errors.New("not everything could be measured"))
	}
	return err
}

// reprint prints what an earlier run has measured.
func (f flags) reprint(out io.Writer) error {
	data, err := os.ReadFile(f.from)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read %s: %w", f.from, err)
	}
	return f.write(r, out)
}

func (f flags) write(r report, out io.Writer) error {
	if f.jsonFile != "" {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.jsonFile, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if f.markdown {
		return r.writeMarkdown(out)
	}
	return r.writeTable(out)
}

func parse(args []string, usage io.Writer) (flags, error) {
	f := flags{options: options{settings: settings{Flows: []int{300, 5000}}}}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(usage)
	set.IntVar(&f.Rounds, "rounds", 3, "how often everything is measured")
	set.DurationVar(&f.Duration, "duration", 2*time.Second, "`time` of one sample of what is measured by the clock")
	set.StringVar(&f.Bin, "bin", "bin", "`directory` of eclitunneld and eclitunnel")
	set.StringVar(&f.Game, "game", "127.0.0.1:0", "`address` of the game that the bench runs; port 0 is any")
	set.IntVar(&f.Idle, "idle", 2000, "connections with which memory is measured")
	set.IntVar(&f.LossSize, "loss-size", traffic.LoadSize, "size of the datagrams of loss-udp, in `bytes`")
	set.Float64Var(&f.Foreign, "foreign", 0.05, "leave a sample out where other processes used more than this `share` of the CPUs, or a fifth of it for latencies")
	set.StringVar(&f.Uplink, "uplink", uplinkOwn, "where the home uplink and the link that loses packets are made: `own`, network namespaces of their own (as root), here, in this one that has only lo, or off")
	set.StringVar(&f.jsonFile, "json", "", "write the results to this `file`; /dev/stdout prints them")
	set.BoolVar(&f.markdown, "markdown", false, "print a section of docs/benchmarks.md, not a table")
	set.StringVar(&f.from, "from", "", "measure nothing; print the results in this JSON `file`")
	short := set.Bool("short", false, "a short sample of everything, to see that the bench works")
	var only []string
	set.Func("only", "measure only these subjects and measures: `names`, with commas between; udp is all that begin with udp-", func(text string) error {
		only = strings.Split(text, ",")
		return nil
	})
	set.Func("flows", "`numbers` of UDP flows to open at once, with commas between (default 300,5000)", func(text string) (err error) {
		f.Flows, err = numbers(text)
		return err
	})
	set.Func("gomaxprocs", "run ours with these GOMAXPROCS at both ends as well, as subjects of their own: `numbers`, with commas between", func(text string) (err error) {
		f.Procs, err = numbers(text)
		return err
	})
	set.Func("peer", "another tunnel to measure: `NAME=PATH`, its name and a program that starts it, as those in test/run/bench/peers; may be given several times", func(text string) error {
		p, err := parsePeer(text)
		f.Peers = append(f.Peers, p)
		return err
	})
	if err := set.Parse(args); err != nil {
		return flags{}, err
	}
	if *short {
		f.Rounds, f.Duration, f.Idle, f.Foreign, f.Brief = 1, 200*time.Millisecond, 100, anyShare, true
	}
	return f, errors.Join(f.check(set.Args()), f.choose(only))
}

func (f flags) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case f.Rounds < 1, f.Duration < 10*time.Millisecond, f.Idle < 1:
		return errors.New("--rounds, --duration and --idle must be positive, and a sample no shorter than 10ms")
	case slices.ContainsFunc(append(f.Flows, f.Procs...), func(n int) bool { return n < 1 }):
		return errors.New("--flows and --gomaxprocs are positive numbers")
	case f.LossSize < 100, f.LossSize > 2000:
		return errors.New("--loss-size is 100 to 2000 bytes")
	case !slices.Contains([]string{uplinkOwn, uplinkHere, uplinkOff}, f.Uplink):
		return fmt.Errorf("--uplink is own, here or off, not %q", f.Uplink)
	}
	return nil
}

func numbers(text string) ([]int, error) {
	var all []int
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// choose sorts the names of --only into subjects and measures. Of a kind of which
// none is named, all are wanted.
func (o *options) choose(names []string) error {
	subjects := []string{direct, hop2, hopTLS, ours, oursLimited, oursPlain}
	for _, n := range o.Procs {
		subjects = append(subjects, fmt.Sprint(oursProcs, n))
	}
	for _, p := range o.Peers {
		if slices.Contains(subjects, p.Name) {
			return fmt.Errorf("--peer: there is a subject named %q already", p.Name)
		}
		subjects = append(subjects, p.Name)
	}
	for _, name := range names {
		if slices.Contains(subjects, name) {
			o.Subjects = append(o.Subjects, name)
			continue
		}
		before := len(o.Measures)
		for _, m := range measures {
			if m.name == name || strings.HasPrefix(m.name, name+"-") {
				o.Measures = append(o.Measures, m.name)
			}
		}
		if len(o.Measures) == before {
			return fmt.Errorf("--only: no subject or measure is named %q", name)
		}
	}
	if o.Subjects == nil {
		o.Subjects = subjects
	}
	if o.Measures == nil {
		for _, m := range measures {
			o.Measures = append(o.Measures, m.name)
		}
	}
	return nil
}
