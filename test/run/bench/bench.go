//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

// Where the home uplink is made.
const (
	uplinkOwn  = "own"
	uplinkHere = "here"
	uplinkOff  = "off"
)

// options are what to measure. Their meanings are those of the flags of the same
// names; they are JSON because a role takes them.
type options struct {
	settings
	Rounds             int
	Bin, Game, Uplink  string
	Foreign            float64
	Subjects, Measures []string
	Procs              []int
	Peers              []peer
	// Networks are what the measures take that are taken in this process.
	Networks []network
}

// The roles that the bench plays in processes of their own.
const (
	gameRole    = "game"
	hopRole     = "hop"
	awakeRole   = "awake"
	networkRole = "network"
)

// roles is a function: a role may start others.
func roles() map[string]role.Role {
	return map[string]role.Role{
		gameRole: role.Of(playGame), hopRole: role.Of(startHop), awakeRole: role.Of(playAwake), networkRole: role.Of(playNetwork),
	}
}

// benchmark measures everything and returns what it found, which may be worth
// having where it returns an error as well.
func benchmark(ctx context.Context, o options, progress io.Writer) (report, error) {
	o.Networks = []network{anywhere}
	if o.Uplink == uplinkHere {
		o.Networks = append(o.Networks, homeUplink, lossyLink)
	}
	b := bench{options: o, progress: progress, awake: stayAwake}
	started := time.Now()
	r, err := b.measureHere(ctx)
	for _, n := range []network{homeUplink, lossyLink} {
		if err == nil && o.Uplink == uplinkOwn && len(b.measures(n)) > 0 {
			err = b.measureElsewhere(ctx, n, &r)
		}
	}
	r.Started, r.Seconds = started, time.Since(started).Seconds()
	return r, errors.Join(err, r.Host.describe())
}

// measureElsewhere measures what takes a network, in a network namespace of its
// own. The game cannot be reached from the other end of a cable but through a tunnel.
func (b *bench) measureElsewhere(ctx context.Context, n network, r *report) error {
	if err := cluster.CanPlace(); err != nil {
		fmt.Fprintf(b.progress, "what takes a %s is not measured: %v\n", n, err)
		return nil
	}
	o := b.options
	o.Networks, o.Game = []network{n}, "127.0.0.1:0"
	if n == lossyLink {
		o.Subjects = slices.DeleteFunc(slices.Clone(o.Subjects), func(name string) bool { return name == direct })
	}
	var there report
	process, err := role.Start(ctx, networkRole, o, &there, true)
	if err != nil {
		return err
	}
	r.merge(there)
	return process.Stop()
}

// playNetwork is the bench in a network namespace that has nothing but lo.
func playNetwork(ctx context.Context, o options) (report, func() error, error) {
	b := bench{options: o, progress: os.Stderr, awake: stayAwake}
	r, err := b.measureHere(ctx)
	return r, func() error { return nil }, err
}

// bench measures subjects in turn.
type bench struct {
	options
	progress io.Writer
	awake    func(context.Context) (func() error, error)
	noting   sync.Mutex // Of the report and progress.
	cable    *cable
}

// measures are those that are wanted and take one of these networks.
func (b *bench) measures(networks ...network) []measure {
	return slices.DeleteFunc(slices.Clone(measures), func(m measure) bool {
		return !slices.Contains(b.Measures, m.name) || !slices.Contains(networks, m.network)
	})
}

// measureHere starts all subjects in this network namespace, measures and stops them.
func (b *bench) measureHere(ctx context.Context) (r report, err error) {
	r = report{Rounds: b.Rounds}
	wanted := b.measures(b.Networks...)
	if len(wanted) == 0 {
		return r, nil
	}
	if slices.Contains(b.Networks, homeUplink) {
		if r.Host.UplinkCongestion, err = openUplink(ctx); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, closeUplink()) }()
	}
	b.cable = loopbackCable()
	if slices.Contains(b.Networks, lossyLink) && b.Uplink != uplinkHere {
		if b.cable, err = newCable(ctx); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, b.cable.close()) }()
	}
	f, err := startField(ctx, b.options, b.cable)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	err = b.rounds(ctx, wanted, f.subjects, &r)
	return r, err
}

// rounds measures every subject by every measure, again and again. Subjects
// follow each other in the innermost loop, so that what is compared was measured
// close together, and each round begins with another.
func (b *bench) rounds(ctx context.Context, wanted []measure, subjects []subject, r *report) error {
	for _, s := range subjects {
		r.Subjects = append(r.Subjects, s.name)
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, m := range wanted {
			if m.once && round > 1 {
				continue
			}
			at := new(errgroup.Group)
			if !m.together {
				at.SetLimit(1)
			}
			for i := range subjects {
				if s := subjects[(i+round-1)%len(subjects)]; m.applies(s) {
					at.Go(func() error { return b.take(ctx, m, s, round, r) })
				}
			}
			if err := at.Wait(); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// attempts is how often a sample is taken again because the machine was busy.
	attempts = 4
	// latencyStrictness is by how much less others may use the CPUs while latencies
	// are taken: a process in the way for a hundredth of the time makes the 99th of a
	// hundred round trips.
	latencyStrictness = 5
	// sampleLimit is how long any sample may take.
	sampleLimit = 6 * time.Minute
)

// take takes one sample, again where something else used the machine.
func (b *bench) take(ctx context.Context, m measure, s subject, round int, r *report) error {
	tolerated := b.Foreign
	if m.latency {
		tolerated /= latencyStrictness
	}
	for range attempts {
		limited, cancel := context.WithTimeout(ctx, sampleLimit)
		t := &sample{settings: b.settings, subject: s, cable: b.cable, awake: b.awake, values: make(map[string]float64)}
		err := m.run(limited, t)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && t.foreign > tolerated {
			err = fmt.Errorf("%w: other processes used %.1f %% of the CPUs", errUnfit, 100*t.foreign)
		}
		if again := b.note(failure{Measure: m.name, Subject: s.name, Round: round}, t.values, err, r); !again {
			return nil // After a failure, what else there is to measure is worth having.
		}
	}
	return nil
}

// note adds a sample to the report, or why there is none, and reports whether it
// should be taken again.
func (b *bench) note(f failure, values map[string]float64, err error, r *report) (again bool) {
	b.noting.Lock()
	defer b.noting.Unlock()
	line := progressLine(f.Round, b.Rounds, f.Measure, f.Subject)
	if err != nil {
		f.Reason, f.Fatal = err.Error(), !errors.Is(err, errUnfit)
		r.Failures = append(r.Failures, f)
		fmt.Fprintln(b.progress, line+"left out: "+f.Reason)
		return !f.Fatal
	}
	var parts []string
	for id, value := range values {
		r.add(id, f.Subject, value)
		parts = append(parts, fmt.Sprintf("%s %.4g", id, value))
	}
	slices.Sort(parts)
	fmt.Fprintln(b.progress, line+strings.Join(parts, ", "))
	return false
}

// progressLine is how the line of a sample begins.
func progressLine(round, rounds int, measure, subject string) string {
	return fmt.Sprintf("%d/%d  %-14s  %-11s  ", round, rounds, measure, subject)
}

// describe notes what the machine is.
func (h *host) describe() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	congestion, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	h.CPUs, h.Go = runtime.NumCPU(), runtime.Version()
	h.Kernel, h.Congestion = unix.ByteSliceToString(name.Release[:]), strings.TrimSpace(string(congestion))
	return err
}
